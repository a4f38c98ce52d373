"""Loss scales: what gradients are to be divided by, and what overflows."""

import keras
import tensorflow as tf

from keras_gradwatch.capture import sparse


def dynamic(optimizer):
    """Whether `optimizer` scales the loss dynamically, and skips overflows itself."""
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def loss_scale(optimizer):
    """What `apply` divides gradients by: a float32 scalar, or None."""
    if dynamic(optimizer):
        scale = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
        return tf.cast(scale, tf.float32)
    if optimizer.loss_scale_factor is not None:
        return tf.constant(float(optimizer.loss_scale_factor))
    return None


def unscale(gradient, scale):
    """A gradient divided by `scale` in float32; as it is where that is None."""
    if scale is None:
        return gradient
    return sparse.map_values(lambda g: tf.cast(g, tf.float32) / scale, gradient)


def spoil(gradients, overflow):
    """Infinite gradients where a loss scale overflowed on any replica.

    `LossScaleOptimizer` asks the first replica only whether its gradients are finite.
    """
    poison = tf.where(overflow, float("inf"), 1.0)

    def spoil(values):
        spoiled = tf.fill(tf.shape(values), tf.cast(poison, values.dtype))
        return tf.where(overflow, spoiled, values)

    return [sparse.map_values(spoil, g) for g in gradients]
