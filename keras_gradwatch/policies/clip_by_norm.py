"""Clipping the norm of each variable's gradient."""

import keras
from keras import ops

from keras_gradwatch.methods import number
from keras_gradwatch.policies.base import Policy, scale_down
from keras_gradwatch.statistics.names import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class ClipByNorm(Policy):
    """Clips the norm of each variable's gradient to clipnorm.

    Formula: `g ← g · min(1, c / ‖g‖)`, each variable by itself.

    Args:
        clipnorm: The limit c, in units of the gradient norm, > 0.

    Raises:
        ValueError: If `clipnorm` is not a finite number > 0.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.ClipByNorm(1.0))
    ```

    Reference: Pascanu, Mikolov and Bengio 2013 (arXiv 1211.5063), per variable; in
    Keras, `clipnorm=`.
    """

    def __init__(self, clipnorm: float) -> None:
        self.settings = {"clipnorm": number(self, "clipnorm", clipnorm, above=0)}

    def decide(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        limit = settings["clipnorm"]
        return ops.any(norms > limit), {"norms": norms, "limit": limit}, state

    def transform(self, gradients, limits):
        return [
            scale_down(g, limits["norms"][i], limits["limit"])
            for i, g in enumerate(gradients)
        ]
