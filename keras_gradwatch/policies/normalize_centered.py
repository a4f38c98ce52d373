"""Centering and normalizing each variable's gradient."""

import keras
from keras import ops

from keras_gradwatch.policies.base import Policy
from keras_gradwatch.policies.centralize import centered
from keras_gradwatch.statistics.measure import divisor
from keras_gradwatch.tensors.reductions import largest
from keras_gradwatch.tensors.sparse import SparseRows, map_values

ROUNDING = 1e-6  # what is left of equal components, over their norm


@keras.saving.register_keras_serializable("keras_gradwatch")
class NormalizeCentered(Policy):
    """Centers each variable's gradient and scales it to norm 1.

    Formula: `g ← (g − mean(g)) / ‖g − mean(g)‖`, the mean over the whole variable; 0
    where all components are equal. With SGD, the step of each variable has exactly the
    length of the learning rate, whatever the scale of its gradient.

    A variable with a single component never moves. The gradient of an embedding is only
    scaled, because centering would move the rows that are not in the batch.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.NormalizeCentered())
    ```

    Reference: gradient centralization (Yong et al. 2020, arXiv 2004.01461) over whole
    variables, with the normalized step of Hazan, Levy and Shalev-Shwartz 2015, "Beyond
    convexity: stochastic quasi-convex optimization" (arXiv 1507.02030).
    """

    def decide(self, measured, state, settings):
        return ops.convert_to_tensor(True, "bool"), {}, state

    def transform(self, gradients, limits):
        return [_normalized(g) for g in gradients]


def _normalized(gradient):
    def normalize(values):
        dtype, values = values.dtype, ops.cast(values, "float32")
        # Sums and squares of what is about 1 are finite.
        values = values / divisor(largest(ops.abs(values)))
        moved = values
        if not isinstance(gradient, SparseRows):
            moved = centered(values, range(len(values.shape)))
        norm = _norm(moved)
        some = norm > ROUNDING * _norm(values)
        return ops.cast(ops.where(some, moved / ops.where(some, norm, 1.0), 0.0), dtype)

    return map_values(normalize, gradient)


def _norm(values):
    return ops.sqrt(ops.sum(ops.square(values)))
