"""Clipping the norm of all gradients together."""

import keras

from keras_gradwatch.methods import number
from keras_gradwatch.policies.base import Policy, scale_down


@keras.saving.register_keras_serializable("keras_gradwatch")
class ClipByGlobalNorm(Policy):
    """Clips the global norm of the gradients to `global_clipnorm`.

    Formula: `gᵢ ← gᵢ · min(1, c / √Σⱼ‖gⱼ‖²)`. It keeps the direction of the update.

    Args:
        global_clipnorm: The limit c, in units of the gradient norm, > 0.

    Raises:
        ValueError: If `global_clipnorm` is not a finite number > 0.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.ClipByGlobalNorm(1.0))
    ```

    Reference: Pascanu, Mikolov and Bengio 2013, "On the difficulty of training
    recurrent neural networks" (arXiv 1211.5063); in Keras, `global_clipnorm=`.
    """

    def __init__(self, global_clipnorm: float) -> None:
        self.settings = {
            "global_clipnorm": number(self, "global_clipnorm", global_clipnorm, above=0)
        }

    def decide(self, measured, state, settings):
        limit = settings["global_clipnorm"]
        norm = measured.global_norm
        return norm > limit, {"norm": norm, "limit": limit}, state

    def transform(self, gradients, limits):
        return [scale_down(g, limits["norm"], limits["limit"]) for g in gradients]
