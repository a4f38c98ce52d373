"""A network that has died: no gradient reaches its kernels."""

import math
import statistics

import keras
import numpy as np

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import whole

# A network that only gets a gradient in some steps has collapsed if its loss is at
# least this fraction of the best level from before.
NO_BETTER = 0.9


@keras.saving.register_keras_serializable("keras_gradwatch")
class Collapse(Detector):
    """Trips when no gradient reaches the kernels any more.

    Formula: in steps with `‖g‖ > 0`, it trips when the gradient

    - of every kernel is exactly zero for `steps` steps in a row, or
    - of every kernel but the last one is exactly zero in `steps` of the newest
      2 · `steps` steps, and the median of the newest `steps` losses is at least 0.9
      times the smallest such median from before these steps, taken every `steps` steps
      if all of the newest 2 · `steps` steps had a gradient,

    if one of these kernels has had a gradient earlier.

    The loss could still be reduced, but only biases and the last kernel receive a
    gradient. This happens when a few large updates push all, or nearly all, rectified
    units of a layer below zero for every input. The second rule does not apply where
    the loss is unknown or not above 0. It trips once, and again only after the kernels
    before the last one have had a gradient in 2 · `steps` steps in a row.

    Args:
        steps: Steps without a gradient after which it trips, >= 1: in a row for the
            first rule, of the newest 2 · `steps` for the second. With small batches, an
            occasional step in which a whole layer is inactive is normal. Defaults to
            `20`.

    Raises:
        ValueError: If `steps` is not an integer >= 1.

    Example:

    ```python
    callbacks.RewindOnExplosion(detector=detectors.Collapse())
    ```

    Reference: the dying ReLU (Lu et al. 2019, arXiv 1903.06733), in its last stage,
    from which only restoring earlier weights helps.
    """

    kind = "collapse"

    def __init__(self, steps: int = 20) -> None:
        self.settings = {"steps": whole(self, "steps", steps, at_least=1)}

    def initial_state(self, num_variables):
        """Steps in a row, and the newest steps; whether there ever was a gradient.

        `zeros` marks the newest 2 · `steps` steps whose kernels had no gradient, and
        `losses` are the newest `steps` losses, both as rings with `seen` values.
        """
        steps = self.settings["steps"]
        rings = {"zeros": np.zeros(2 * steps), "losses": np.zeros(steps)}
        names = ("streak", "alive", "reached", "count", "partly", "seen", "best")
        return {**dict.fromkeys(names, 0.0), **rings}

    def begin_fit(self, state):
        """Resets the second rule: other data have another loss."""
        kept = {name: state[name] for name in ("streak", "alive", "reached")}
        state.update(self.initial_state(0) | kept)

    def observe(self, step, state):
        kernels = step.norms[step.kernels]
        if not step.global_norm > 0:
            state["streak"] = 0.0
            return None
        if _is_dead(kernels):
            state["streak"] += state["alive"]
        else:
            state["streak"] = 0.0
        self._add(step.loss, _is_dead(kernels[:-1]) and state["reached"], state)
        state["alive"] = max(state["alive"], float((kernels > 0).any()))
        state["reached"] = max(state["reached"], float((kernels[:-1] > 0).any()))
        told, steps = state["partly"], self.settings["steps"]
        partly = self._is_partly_dead(state)
        if state["streak"] == steps and not told:
            state["partly"] = 1.0
            return Verdict(None, state["streak"], float(steps))
        return Verdict(None, state["count"], 2.0 * steps) if partly else None

    def _add(self, loss, dead, state):
        """Adds a step to the rings, and after each `steps` steps their best level."""
        steps, seen = self.settings["steps"], int(state["seen"])
        at = seen % (2 * steps)
        state["count"] += float(dead) - state["zeros"][at]
        state["zeros"][at] = dead
        state["losses"][seen % steps] = loss if math.isfinite(loss) else 0.0
        state["seen"] += 1
        if state["seen"] % steps == 0 and not state["count"]:
            level = _median(state["losses"])
            state["best"] = min(state["best"] or level, level)

    def _is_partly_dead(self, state):
        """Returns whether the second rule begins to hold."""
        if not state["count"]:
            state["partly"] = 0.0
        if state["partly"] or state["count"] < self.settings["steps"]:
            return False
        holds = _median(state["losses"]) >= NO_BETTER * state["best"] > 0
        state["partly"] = float(holds)
        return holds

    def describe(self, variable, value, baseline):
        if baseline == self.settings["steps"]:
            return f"no gradient has reached any kernel for {int(value)} steps"
        steps = f"{int(value)} of {int(baseline)} steps"
        return f"in {steps}, no gradient has reached the kernels before the last one"


def _is_dead(kernels):
    """Returns whether the gradients with these norms are zero, where there are any."""
    return bool((kernels == 0).any()) and not (kernels > 0).any()


def _median(losses):
    # On a list: NumPy takes several times as long for so few.
    return statistics.median(losses.tolist())
