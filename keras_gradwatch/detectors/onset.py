"""Reporting a lasting condition once: when it begins, not at each of its steps."""

from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.methods import whole


class Onset(Detector):
    """Base of the detectors of conditions that last, such as vanishing gradients.

    Such a detector trips once, when its condition has held for `patience` judgments in
    a row, and can trip again after the condition has been false for as many.
    """

    def __init__(self, patience: int) -> None:
        self.settings = {"patience": whole(self, "patience", patience, at_least=1)}

    def initial_state(self, num_variables):
        """Returns whether the condition is on, and judgments in a row against that."""
        return {"on": 0.0, "against": 0.0}

    def onset(self, holds, state):
        """Adds a judgment to `state`; returns whether the condition just turned on."""
        if holds == (state["on"] > 0):
            state["against"] = 0.0
            return False
        state["against"] += 1
        if state["against"] < self.settings["patience"]:
            return False
        state["on"], state["against"] = float(holds), 0.0
        return bool(holds)
