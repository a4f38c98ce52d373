"""Loss scales: what gradients must be divided by, and what overflows."""

import keras
from keras import ops

from keras_gradwatch.tensors import sparse


def dynamic(optimizer):
    """Returns whether `optimizer` scales the loss dynamically and skips overflows."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def loss_scale(optimizer):
    """Returns what `apply` divides gradients by, a scalar float32, or None."""
    if dynamic(optimizer):
        scale = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
        return ops.cast(ops.convert_to_tensor(scale), "float32")
    if optimizer.loss_scale_factor is not None:
        return ops.convert_to_tensor(float(optimizer.loss_scale_factor), "float32")
    return None


def unscale(gradient, scale):
    """Divides a gradient by `scale` in float32; None leaves it unchanged."""
    if scale is None:
        return gradient
    return sparse.map_values(lambda g: ops.cast(g, "float32") / scale, gradient)


def propagate_overflow(gradients, overflow):
    """Makes gradients infinite where a loss scale overflowed on any replica.

    `LossScaleOptimizer` checks only whether the first replica's gradients are finite.
    """

    def infinite(values):
        return ops.where(overflow, ops.full_like(values, float("inf")), values)

    return [sparse.map_values(infinite, g) for g in gradients]
