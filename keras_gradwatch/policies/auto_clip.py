"""Clipping the global norm to a percentile of the norms so far."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.methods import number, whole
from keras_gradwatch.policies.base import Policy, scale_down


@keras.saving.register_keras_serializable("keras_gradwatch")
class AutoClip(Policy):
    """Clips the norm of all gradients together to a percentile of its recent values.

    Formula: `c = percentile_p(‖g₁‖, …, ‖gₜ‖)`, `g ← g · min(1, c / ‖g‖)`, with the
    norms before clipping, including the current one. The percentile is interpolated
    between two norms.

    The original keeps all norms of the run, so its memory grows and it hardly adapts to
    a lasting shift. This policy uses the newest `window` norms: it equals the original
    until step `window`, and adapts to a shift of scale within `window` steps.

    State: `norms` [window], the newest last, and their number `seen`.

    Args:
        percentile: p, > 0 and < 100. At 10, nine of ten steps are clipped by design, so
            the learning rate must be tuned for it. Defaults to `10.0`.
        window: Number of norms, >= 1. The original uses all norms of the run. Defaults
            to `1000`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.AutoClip(percentile=10.0))
    ```

    Reference: Seetharaman et al. 2020, "AutoClip: adaptive gradient clipping for source
    separation networks" (arXiv 2007.14469).
    """

    def __init__(self, percentile: float = 10.0, window: int = 1000) -> None:
        self.settings = {
            "percentile": number(self, "percentile", percentile, above=0, below=100)
        }
        self.window = whole(self, "window", window, at_least=1)

    def get_config(self):
        return {**self.settings, "window": self.window}

    def initial_state(self, num_variables):
        """The newest norms, and how many of them there are."""
        return {"norms": np.zeros(self.window, "float32"), "seen": np.float32(0.0)}

    def decide(self, measured, state, settings):
        norm = measured.global_norm
        norms = ops.concatenate([state["norms"][1:], norm[None]])
        seen = ops.minimum(state["seen"] + 1, self.window)
        # What is not filled yet stands in front, and goes to the end.
        filled = ops.arange(self.window, dtype="float32") >= self.window - seen
        ordered = ops.sort(ops.where(filled, norms, float("inf")))
        place = settings["percentile"] / 100 * (seen - 1)
        below, above = ops.floor(place), ops.ceil(place)
        low = ops.take(ordered, ops.cast(below, "int32"))
        high = ops.take(ordered, ops.cast(above, "int32"))
        limit = low + (place - below) * (high - low)
        limits = {"norm": norm, "limit": limit}
        return norm > limit, limits, {"norms": norms, "seen": seen}

    def transform(self, gradients, limits):
        return [scale_down(g, limits["norm"], limits["limit"]) for g in gradients]
