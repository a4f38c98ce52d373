"""Gradients that do not reach the first layers."""

import math

import keras
import numpy as np

from keras_gradwatch.detectors import running
from keras_gradwatch.detectors.base import Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number


@keras.saving.register_keras_serializable("keras_gradwatch")
class Vanishing(Onset):
    """Trips when the gradient of the first kernel begins to vanish.

    Formula: with a and b the running means of ‖g‖ of the first and of the last
    variable with two or more axes, and n that of the global norm, it trips when
    `a < ratio · b` and `a < floor ≤ n` has held for `patience` steps in a row.

    Because of the running means, single batches with a zero gradient do not trip it
    (such as a batch of one sample that activates no ReLU). A converged run does not
    trip it either: all of its norms are small, so n is below `floor` or a is not below
    `ratio · b`. It reports the onset once, and can trip again when the condition has
    not held for `patience` steps. Its event names the first kernel.

    Args:
        ratio: The first kernel's norm over the last one's, > 0. Defaults to `1e-3`.
        floor: Norm below which a gradient is small by itself, > 0. Defaults to `1e-4`.
        decay: Decay of the running means per step, >= 0 and < 1. Defaults to `0.9`.
        patience: Steps in a row for which the condition must hold, or no longer hold,
            before the state changes, >= 1. Defaults to `20`.

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

    def __init__(
        self,
        ratio: float = 1e-3,
        floor: float = 1e-4,
        decay: float = 0.9,
        patience: int = 20,
    ) -> None:
        super().__init__(patience)
        self.settings |= {
            "ratio": number(self, "ratio", ratio, above=0),
            "floor": number(self, "floor", floor, above=0),
            "decay": number(self, "decay", decay, at_least=0, below=1),
        }

    def initial_state(self, num_variables):
        """That of `Onset`, the means of both kernels and of all, and the steps seen."""
        names = ("first", "last", "whole", "seen")
        return {**super().initial_state(num_variables), **dict.fromkeys(names, 0.0)}

    def observe(self, step, state):
        kernels = np.flatnonzero(step.kernels & ~np.isnan(step.norms))
        if len(kernels) < 2:
            return None
        first, last = int(kernels[0]), int(kernels[-1])
        values = float(step.norms[first]), float(step.norms[last]), step.global_norm
        if not all(map(math.isfinite, values)):
            return None
        state["seen"] += 1
        weight = running.weight(state["seen"], self.settings["decay"])
        for name, value in zip(("first", "last", "whole"), values, strict=True):
            state[name] += weight * (value - state[name])
        a, b, n = state["first"], state["last"], state["whole"]
        floor = self.settings["floor"]
        holds = a < self.settings["ratio"] * b and a < floor <= n
        return Verdict(first, a, b) if self.onset(holds, state) else None

    def describe(self, variable, value, baseline):
        return (
            f"gradients vanish before reaching {variable}: the norm is {value:.3g} "
            f"there and {baseline:.3g} in the last kernel"
        )
