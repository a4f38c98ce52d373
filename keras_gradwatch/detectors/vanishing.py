"""Gradients that do not reach the first layers."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors import running
from keras_gradwatch.detectors.base import BELOW, Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number
from keras_gradwatch.train_step.statistics import NAMES


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

    def detect(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        judged = measured.kernels & ~ops.isnan(norms)
        places = ops.cast(judged, "int32")
        first = ops.cast(ops.argmax(places), "int32")
        last = norms.shape[0] - 1 - ops.cast(ops.argmax(ops.flip(places)), "int32")
        ends = ops.take(norms, ops.stack([first, last]))
        values = ops.concatenate([ends, measured.global_norm[None]])
        usable = measured.finite & ops.all(ops.isfinite(values)) & (first < last)
        weight = running.weight(state["seen"] + 1, settings["decay"])
        before = ops.stack([state[name] for name in ("first", "last", "whole")])
        means = before + weight * (values - before)
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
        seen, floor, ratio = state["seen"], settings["floor"], settings["ratio"]
        # What is left of the first mean after all steps, at least.
        first = state["first"] * ops.prod(1 - running.weights(seen, settings["decay"]))
        last, whole = state["last"], state["whole"]
        # No mean of the last kernel or of the whole rises above its largest value.
        small = ops.where(whole < floor, floor, 0.0)
        level = ops.where(last * ratio <= first * BELOW, first / ratio, 0.0)
        line = ops.maximum(small, level) * BELOW
        line = ops.where(first >= floor, float("inf"), line)
        sure = ops.equal(state["on"], 0) & ops.equal(state["against"], 0)
        sure = sure & running.usable(seen, settings["decay"])
        return {"global_norm": (0.0, ops.where(sure, line, 0.0))}

    def advance(self, steps, state, settings):
        """The means after some more steps; see `Detector.advance`."""
        kernels = [i for i, kernel in enumerate(steps.kernels) if kernel]
        if len(kernels) < 2:
            return {}  # never judged
        ends = [steps.norms[:, kernels[i]] for i in (0, -1)]
        values = ops.stack([*ends, steps.global_norm], axis=1)
        before = ops.stack([state[name] for name in ("first", "last", "whole")])
        weights = running.weights(state["seen"], settings["decay"], steps.there)
        a, b, n = ops.unstack(running.means(before, values, weights)[-1], 3)
        seen = state["seen"] + steps.count
        return {"first": a, "last": b, "whole": n, "seen": seen}

    def describe(self, variable, value, baseline):
        return (
            f"gradients vanish on their way to {variable}: its norm is {value:.3g}, "
            f"that of the last kernel {baseline:.3g}"
        )
