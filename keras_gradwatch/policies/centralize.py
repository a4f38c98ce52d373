"""Gradient centralization."""

import math

import keras
from keras import ops

from keras_gradwatch.policies.base import Policy
from keras_gradwatch.tensors.sparse import SparseRows


@keras.saving.register_keras_serializable("keras_gradwatch")
class Centralize(Policy):
    """Subtracts from the gradient of each kernel its mean over the inputs of a unit.

    Formula: `g ← g − mean(g)`, over all axes but the last, for variables with two or
    more axes. With SGD and without weight decay, the mean of the weights of a unit
    stays constant.

    It does not limit gradients: combine it with a clipping policy in a `Chain`. The
    gradient of an embedding is not centered, because that would move the rows that are
    not in the batch. It changes the gradients in every step, and costs two passes over
    the kernels.

    Example:

    ```python
    clip = policies.ClipByGlobalNorm(1.0)
    callbacks.GradientClipping(policies.Chain([policies.Centralize(), clip]))
    ```

    Reference: Yong et al. 2020, "Gradient centralization: a new optimization technique
    for deep neural networks" (arXiv 2004.01461).
    """

    def decide(self, measured, state, settings):
        kernels = [_has_units(g) for g in measured.gradients]
        return ops.convert_to_tensor(any(kernels)), {}, state

    def transform(self, gradients, limits):
        return [
            ops.cast(centered(g, range(len(g.shape) - 1)), g.dtype)
            if _has_units(g)
            else g
            for g in gradients
        ]


def _has_units(gradient):
    return not isinstance(gradient, SparseRows) and len(gradient.shape) > 1


def centered(values, axes):
    """Returns `values` without their mean over `axes`, in float32."""
    axes, values = tuple(axes), ops.cast(values, "float32")
    count = math.prod(values.shape[axis] for axis in axes)
    # Divided first: the sum of finite values may not be finite.
    return values - ops.sum(values / max(count, 1), axis=axes, keepdims=True)
