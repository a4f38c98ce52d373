"""A run that has come apart: its loss is lastingly worse than it was."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors import running
from keras_gradwatch.detectors.base import AHEAD, BELOW, Detector, whole_step
from keras_gradwatch.methods import number, whole

# A loss so small that its logarithm says nothing any more.
TINY = 1e-12


@keras.saving.register_keras_serializable("keras_gradwatch")
class Divergence(Detector):
    """Trips when the loss stays far above its best level, and above where it began.

    Formula: with m the running mean of log L over about `steps` steps (decay
    1 − 1/`steps`), m₀ its value after the first `steps` steps and m* its least value
    since, it trips when `m > max(m₀, m* + log factor)` for `steps` steps in a row. It
    trips once, and again only after the loss has come down in between.

    A single spike does not move the mean of logarithms far, and a run that is merely
    noisy never returns to above its beginning. A loss that is not above 0, or not
    known, is never judged.

    Args:
        factor: How many times its best level the loss must be, > 1. Default 10.
        steps: Length of the mean, and steps in a row, >= 1. Default 20.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.RewindOnExplosion(detector=detectors.Divergence(factor=100.0))
    ```

    Reference: the loss criterion of rewinding in PaLM's training (Chowdhery et al.
    2022, arXiv 2204.02311, section 5.1), made a rule.
    """

    kind = "divergence"

    def __init__(self, factor=10.0, steps=20):
        self.settings = {
            "factor": number(self, "factor", factor, above=1),
            "steps": whole(self, "steps", steps, at_least=1),
        }

    def initial_state(self, num_variables):
        """Running mean, its first and its least value, steps seen, steps in a row."""
        del num_variables
        names = ("mean", "first", "least", "seen", "streak")
        return {name: np.float32(0) for name in names}

    def detect(self, measured, state, settings):
        loss, steps = measured.loss, settings["steps"]
        usable = measured.finite & (loss > 0)
        level = ops.log(ops.maximum(ops.where(usable, loss, 1.0), TINY))
        seen = state["seen"] + 1
        # A plain average while values are few.
        mean = state["mean"] + (level - state["mean"]) / ops.minimum(seen, steps)
        young = seen <= steps
        first = ops.where(young, mean, state["first"])
        least = ops.where(young, mean, ops.minimum(mean, state["least"]))
        limit = ops.maximum(first, least + ops.log(settings["factor"]))
        above = ~young & (mean > limit)
        streak = ops.where(above, state["streak"] + 1, 0.0)
        tripped = usable & ops.equal(streak, steps)
        new = {
            "mean": mean,
            "first": first,
            "least": least,
            "seen": seen,
            "streak": streak,
        }
        new = {name: ops.where(usable, new[name], state[name]) for name in new}
        return whole_step(tripped, ops.exp(mean), ops.exp(least)), new

    def lines(self, measured, state, settings):
        """The losses that keep the mean below its limit; see `Detector.lines`.

        A mean that falls takes the least one along, and so the limit: losses within
        1/`factor` of the mean take it down by no more than a share of log `factor`.
        """
        del measured
        mean, steps, reach = (
            state["mean"],
            settings["steps"],
            ops.log(settings["factor"]),
        )
        moved = 1 - ops.power(1 - 1 / steps, float(AHEAD))  # share of the mean, at most
        least = ops.minimum(state["least"], mean - moved * reach)
        limit = ops.maximum(state["first"], least + reach)
        top = ops.exp(mean + (limit - mean) / moved)
        sure = (state["seen"] >= steps) & (mean < limit) & (steps >= 2)
        return {"loss": (ops.exp(mean - reach), ops.where(sure, top * BELOW, 0.0))}

    def advance(self, steps, state, settings):
        """The mean after losses that keep it down; see `Detector.advance`."""
        taken = steps.there & (steps.loss > 0)
        levels = ops.log(ops.maximum(ops.where(taken, steps.loss, 1.0), TINY))
        weights = ops.where(taken, 1 / settings["steps"], 0.0)
        means = running.means(state["mean"], levels, weights)
        count = ops.sum(ops.cast(taken, "float32"))
        lowest = ops.min(ops.where(taken, means, float("inf")))
        return {
            "mean": means[-1],
            "least": ops.minimum(state["least"], lowest),
            "seen": state["seen"] + count,
            "streak": ops.where(count > 0, 0.0, state["streak"]),
        }

    def describe(self, variable, value, baseline):
        del variable
        return f"the loss has come to {value:.3g} and stays there, from {baseline:.3g}"
