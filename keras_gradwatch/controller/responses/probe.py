"""Whether the weights are the reason for a loss that has risen, or the data."""

import math

import numpy as np

from keras_gradwatch.controller.responses.snapshot import Snapshot
from keras_gradwatch.controller.responses.trust import level

# Steps of a probe.
STEPS = 3


class Probe:
    """Puts the weights of a snapshot in for a few steps, and looks at the loss.

    Formula: the weights are the reason if the mean log loss of `STEPS` steps from the
    snapshot on is less than `limit`. Else the loss is as high with earlier weights: the
    data have changed, or the loss function.

    Args:
        snapshot: `Snapshot` of earlier weights.
        controller: The `Controller`.
        limit: A log loss, as `trust.level` gives it.
        trip: `Trip` for the event.

    Attributes:
        trip: The trip.
        snapshot: The snapshot.
        left: `Snapshot` of the run as it was before.
    """

    def __init__(self, snapshot, controller, limit, trip):
        self.trip, self.snapshot, self._limit = trip, snapshot, limit
        self.left = Snapshot(controller)
        self._levels, self._seen = [], 0
        snapshot.put_back(controller)
        controller.restart_responses()
        controller.read_each(STEPS)

    def blames_weights(self, loss):
        """Takes in the loss of a step.

        Returns:
            Whether the weights are the reason, a bool; None while it is not known.
        """
        self._seen += 1
        if math.isfinite(loss):
            self._levels.append(level(loss))
        if self._seen < STEPS:
            return None
        return not self._levels or bool(np.mean(self._levels) < self._limit)
