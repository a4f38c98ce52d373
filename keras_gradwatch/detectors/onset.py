"""Telling a lasting condition once: when it begins, not at each of its steps."""

import numpy as np
from keras import ops

from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.methods import whole


class Onset(Detector):
    """Base of the detectors of conditions that last, such as vanishing gradients.

    Such a detector trips in one step, when its condition has held for `patience`
    judgements in a row, and is armed again once it has been gone for as many.

    Args:
        patience: Judgements in a row after which a change is believed, >= 1.

    Raises:
        ValueError: If `patience` is out of its range.
    """

    def __init__(self, patience):
        self.settings = {"patience": whole(self, "patience", patience, at_least=1)}

    def initial_state(self, num_variables):
        """Whether the condition is believed to hold, and judgements against that."""
        del num_variables
        return {"on": np.float32(0.0), "against": np.float32(0.0)}

    def onset(self, holds, judged, state, settings):
        """Takes in one judgement.

        Args:
            holds: Scalar bool, whether the condition holds in this step.
            judged: Scalar bool, False where nothing can be said of this step.
            state: Dict with `on` and `against`.
            settings: Dict with `patience`.

        Returns:
            `(tripped, new on and against)`.
        """
        on = state["on"] > 0
        against = ops.where(ops.not_equal(holds, on), state["against"] + 1, 0.0)
        turns = judged & (against >= settings["patience"])
        new = {
            "on": ops.where(turns, 1 - state["on"], state["on"]),
            "against": ops.where(
                judged, ops.where(turns, 0.0, against), state["against"]
            ),
        }
        return turns & holds, new
