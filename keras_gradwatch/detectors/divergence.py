"""A run that has diverged: its loss stays much worse than before."""

import math

import keras

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import number, whole

# The logarithm of a smaller loss says nothing any more.
TINY = 1e-12


@keras.saving.register_keras_serializable("keras_gradwatch")
class Divergence(Detector):
    """Trips when the loss stays far above its best level, and above its initial level.

    Formula: with m the running mean of log L over about `steps` steps (decay
    1 − 1/`steps`), m₀ its value after the first `steps` steps and m* its smallest value
    since, it trips when `m > max(m₀, m* + log factor)` for `steps` steps in a row. It
    trips once, and again only after the loss has come down in between.

    A single spike does not move the mean of logarithms far, and noise alone does not
    raise the loss above its initial level. A loss that is unknown or not above 0 is
    never judged.

    Args:
        factor: How many times its best level the loss must be, > 1. Defaults to `10.0`.
        steps: Length of the mean, and steps in a row, >= 1. Defaults to `20`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.RewindOnExplosion(detector=detectors.Divergence(factor=100.0))
    ```

    Reference: the loss criterion of rewinding in PaLM's training (Chowdhery et al.
    2022, arXiv 2204.02311, section 5.1), as a fixed rule.
    """

    kind = "divergence"
    needs_loss = True

    def __init__(self, factor: float = 10.0, steps: int = 20) -> None:
        self.settings = {
            "factor": number(self, "factor", factor, above=1),
            "steps": whole(self, "steps", steps, at_least=1),
        }

    def initial_state(self, num_variables):
        """Running mean, its first and its least value, steps seen, steps in a row."""
        del num_variables
        return dict.fromkeys(("mean", "first", "least", "seen", "streak"), 0.0)

    def begin_fit(self, state):
        """Resets the baseline: other data have another loss."""
        state.update(self.initial_state(0))

    def observe(self, step, state):
        if not 0 < step.loss < math.inf:
            return None
        steps, factor = self.settings["steps"], self.settings["factor"]
        level = math.log(max(step.loss, TINY))
        state["seen"] += 1
        # A plain average while values are few.
        state["mean"] += (level - state["mean"]) / min(state["seen"], steps)
        mean = state["mean"]
        if state["seen"] <= steps:
            state["first"] = state["least"] = mean
            return None
        state["least"] = least = min(mean, state["least"])
        above = mean > max(state["first"], least + math.log(factor))
        state["streak"] = state["streak"] + 1 if above else 0.0
        if state["streak"] != steps:
            return None
        return Verdict(None, math.exp(mean), math.exp(least))

    def describe(self, variable, value, baseline):
        del variable
        return f"the loss has stayed near {value:.3g}, up from {baseline:.3g}"
