"""Clipping each component."""

import keras
from keras import ops

from keras_gradwatch.methods import number
from keras_gradwatch.policies.base import Policy
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensors.sparse import map_values


@keras.saving.register_keras_serializable("keras_gradwatch")
class ClipByValue(Policy):
    """Clips each component of each gradient to [−clipvalue, clipvalue].

    Formula: `gᵢ ← min(max(gᵢ, −c), c)`. It changes the direction of the update.

    Args:
        clipvalue: The limit c, in units of the gradient, > 0.

    Raises:
        ValueError: If `clipvalue` is not a finite number > 0.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.ClipByValue(0.5))
    ```

    Reference: Mikolov 2012, "Statistical Language Models Based on Neural Networks";
    in Keras, `clipvalue=`.
    """

    reads_details = True  # the largest magnitude

    def __init__(self, clipvalue: float) -> None:
        self.settings = {"clipvalue": number(self, "clipvalue", clipvalue, above=0)}

    def decide(self, measured, state, settings):
        limit = settings["clipvalue"]
        largest = measured.statistics[:, NAMES.index("max_abs")]
        return ops.any(largest > limit), {"limit": limit}, state

    def transform(self, gradients, limits):
        def clip(values):
            limit = ops.cast(limits["limit"], values.dtype)
            return ops.clip(values, -limit, limit)

        return [map_values(clip, g) for g in gradients]
