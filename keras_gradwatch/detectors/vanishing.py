"""Gradients that do not reach the first layers."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors.base import BELOW, Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number
from keras_gradwatch.statistics import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class Vanishing(Onset):
    """Trips when the gradient of the first kernel has begun to vanish.

    Formula: with a and b the running means of ‖g‖ of the first and of the last
    variable with two or more axes, and n that of the global norm, it trips when
    `a < ratio · b` and `a < floor ≤ n` has held for `patience` steps in a row.

    The means make it deaf to single batches whose gradient is zero (a batch of one
    sample for which all ReLUs are off), and a run that has converged has small norms
    everywhere, so that n is below `floor` or a is not below `ratio · b`. It tells the
    onset once, and is armed again when the condition has been gone for `patience`
    steps. Its event names the first kernel.

    Args:
        ratio: The first kernel's norm over the last one's, > 0. Default 1e-3.
        floor: Norm below which a gradient is small by itself, > 0. Default 1e-4.
        decay: Decay of the running means per step, 0 to 1. Default 0.9.
        patience: Steps in a row after which a change is believed, >= 1. Default 20.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.TerminateOnExplosion(detector=detectors.Vanishing())
    ```

    Reference: Zhang et al. 2021, "AutoTrainer: An Automatic DNN Training Problem
    Detection and Repair System", ICSE: ratio < 1e-3 and norm < 1e-4.
    """

    kind = "vanishing"

    def __init__(self, ratio=1e-3, floor=1e-4, decay=0.9, patience=20):
        super().__init__(patience)
        self.settings |= {
            "ratio": number(self, "ratio", ratio, above=0),
            "floor": number(self, "floor", floor, above=0),
            "decay": number(self, "decay", decay, at_least=0, below=1),
        }

    def initial_state(self, num_variables):
        """That of `Onset`, the means of both kernels and of all, and the steps seen."""
        names = ("first", "last", "whole", "seen")
        own = {name: np.float32(0.0) for name in names}
        return {**super().initial_state(num_variables), **own}

    def _weight(self, state, settings):
        # Plain averages while values are few, an exponential window from then on.
        return ops.maximum(1 / (state["seen"] + 1), 1 - settings["decay"])

    def _means(self, values, state, settings):
        before = ops.stack([state[name] for name in ("first", "last", "whole")])
        return before + self._weight(state, settings) * (values - before)

    def detect(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        judged = measured.kernels & ~ops.isnan(norms)
        places = ops.cast(judged, "int32")
        first = ops.cast(ops.argmax(places), "int32")
        last = norms.shape[0] - 1 - ops.cast(ops.argmax(ops.flip(places)), "int32")
        ends = ops.take(norms, ops.stack([first, last]))
        values = ops.concatenate([ends, measured.global_norm[None]])
        usable = measured.finite & ops.all(ops.isfinite(values)) & (first < last)
        means = self._means(values, state, settings)
        a, b, n = ops.unstack(means, 3)
        floor = settings["floor"]
        holds = (a < settings["ratio"] * b) & (a < floor) & (n >= floor)
        tripped, turned = self.onset(holds, usable, state, settings)
        seen = state["seen"] + 1
        new = {**turned, "first": a, "last": b, "whole": n, "seen": seen}
        new = {name: ops.where(usable, new[name], state[name]) for name in state}
        return Verdict(tripped, first, a, b), new

    def lines(self, measured, state, settings):
        """Where the means are sure not to cross; see `Detector.lines`."""
        if sum(measured.kernels) < 2:
            return {}  # never judged
        weight = self._weight(state, settings)
        # What is left of the means in the next step, at least; its norms come on top.
        a, b, n = ((1 - weight) * state[name] for name in ("first", "last", "whole"))
        floor = settings["floor"]
        small = (floor - n) / weight
        level = (a / settings["ratio"] - b) / weight
        line = ops.maximum(ops.maximum(small, level) * BELOW, 0.0)
        line = ops.where(a >= floor, float("inf"), line)
        sure = ops.equal(state["on"], 0) & ops.equal(state["against"], 0)
        return {"global_norm": ops.where(sure, line, 0.0)}

    def advance(self, measured, state, settings):
        """The means after one more step; see `Detector.advance`."""
        kernels = [i for i, kernel in enumerate(measured.kernels) if kernel]
        if len(kernels) < 2:
            return {}  # never judged
        norms = measured.statistics[:, 0]
        ends = (norms[kernels[0]], norms[kernels[-1]])
        values = ops.stack([*ends, measured.global_norm])
        a, b, n = ops.unstack(self._means(values, state, settings), 3)
        return {"first": a, "last": b, "whole": n, "seen": state["seen"] + 1}

    def describe(self, variable, value, baseline):
        return (
            f"gradients vanish on their way to {variable}: its norm is {value:.3g}, "
            f"that of the last kernel {baseline:.3g}"
        )
