"""A run that has diverged: its loss stays much worse than before."""

import math
import statistics

import keras
import numpy as np

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import number, whole

# A median that is less than its largest value by this factor falls.
FALLS = 1.5
# So many times `steps` are in a median, and so long the loss must stay high: what a run
# learns from rare data may raise it for a while.
LASTING = 2


@keras.saving.register_keras_serializable("keras_gradwatch")
class Divergence(Detector):
    """Trips when the loss stays far above its best level, or its initial level.

    Formula: with m₀ the median and M₀ the largest of the first `steps` losses, m the
    median of the newest 2 · `steps` losses, m* the smallest m so far, and μ the mean of
    the losses before the rise, it trips when `m > μ / √factor` and

    - `m > m* · factor` and `m > m₀`, or
    - `m > m₀ · √factor` and `m > M₀`

    for 2 · `steps` steps in a row, and m no longer falls. If m is a third below its
    largest value in these steps, the run is recovering by itself, and is judged again
    later. It trips once, and again only after the loss has come down
    in between.

    Spikes do not move the median, and noise alone does not raise the loss above its
    initial level. If a few batches have by far the largest losses, training may lower
    the mean, which it minimizes, while the median rises; so m is also compared with μ,
    in which a loss counts as at most `factor` times the largest of the 2 · `steps`
    losses after it. A loss that is unknown or not above 0 is never judged.

    Args:
        factor: How many times its best level the loss must be, > 1; above its initial
            level, the square root of it suffices. Defaults to `10.0`.
        steps: Half the number of losses in the median, and half the number of steps in
            a row, >= 1. Defaults to `20`.

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
        """The newest losses, medians of them, steps in a row, whether it tripped."""
        names = ("first", "bound", "least", "largest", "streak", "tripped")
        names += ("seen", "total", "counted")
        newest = np.zeros(LASTING * self.settings["steps"])
        return {**dict.fromkeys(names, 0.0), "newest": newest}

    def begin_fit(self, state):
        """Resets the baseline: other data have another loss."""
        state.update(self.initial_state(0))

    def observe(self, step, state):
        if not 0 < step.loss < math.inf:
            return None
        first, factor = self.settings["steps"], self.settings["factor"]
        steps = LASTING * first
        self._add(step.loss, state)
        if state["seen"] == first:
            losses = state["newest"][:first].tolist()
            state["first"] = statistics.median(losses)
            state["bound"] = max(state["first"] * math.sqrt(factor), *losses)
        if state["seen"] < steps:
            return None
        # On a list: NumPy takes several times as long for so few.
        level = statistics.median(state["newest"].tolist())
        if state["seen"] == steps:
            state["least"] = level
        state["least"] = least = min(level, state["least"])
        mean = state["total"] / max(state["counted"], 1)
        high = max(state["first"], mean / math.sqrt(factor))
        if not level > max(high, min(least * factor, state["bound"])):
            state.update(streak=0.0, tripped=0.0)
            return None
        state["largest"] = max(level, state["largest"]) if state["streak"] else level
        state["streak"] += 1
        if state["streak"] < steps or state["tripped"]:
            return None
        if level * FALLS < state["largest"]:
            state.update(streak=1.0, largest=level)  # it is judged again
            return None
        state["tripped"] = 1.0
        return Verdict(None, level, least)

    def _add(self, loss, state):
        """Adds a loss to the newest ones, and the one that it replaces to the mean."""
        newest = state["newest"]
        at = int(state["seen"]) % len(newest)
        old, newest[at] = float(newest[at]), loss
        if state["seen"] >= len(newest) and not state["streak"]:
            # One explosion must not hide a later divergence.
            state["total"] += min(old, self.settings["factor"] * float(newest.max()))
            state["counted"] += 1
        state["seen"] += 1

    def describe(self, variable, value, baseline):
        return f"the loss has stayed near {value:.3g}, up from {baseline:.3g}"
