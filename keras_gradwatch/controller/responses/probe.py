"""A test whether the weights or the data explain a loss that has risen."""

import math

import numpy as np

from keras_gradwatch.controller.responses.snapshot import Snapshot
from keras_gradwatch.controller.responses.trust import level

# Steps of a probe.
STEPS = 3


class Probe:
    """Restores a snapshot for a few steps, and checks the loss.

    Formula: the weights are the cause if the mean log loss of `STEPS` steps from the
    snapshot on is less than `limit` (see `trust.level`). Otherwise the loss does not
    come down with earlier weights, so the data or the loss function must have changed.
    `left` is the `Snapshot` of the run as it was before.
    """

    def __init__(self, snapshot, controller, limit, trip):
        self.trip, self.snapshot, self._limit = trip, snapshot, limit
        self.left = Snapshot(controller)
        self._levels, self._seen = [], 0
        snapshot.put_back(controller)
        controller.restart_responses()
        controller.read_each(STEPS)

    def blames_weights(self, loss):
        """Adds a loss; returns whether the weights are the cause, None if unknown."""
        self._seen += 1
        if math.isfinite(loss):
            self._levels.append(level(loss))
        if self._seen < STEPS:
            return None
        return not self._levels or bool(np.mean(self._levels) < self._limit)


class Pending:
    """A loss that has risen, to be examined as soon as the run allows it.

    The steps from `begin` on decide, those of the next epoch; None: a probe decides.
    `limit` is the log loss halfway between the current level and the best one.
    """

    def __init__(self, trip, begin):
        self.trip, self.begin = trip, begin
        self.limit = (level(trip.value) + level(trip.baseline)) / 2
        self._levels, self._seen = [], 0

    def is_decided(self, rows):
        """Adds new `Rows`; returns whether `STEPS` steps since `begin` are known."""
        losses = rows.judged_loss[rows.steps >= self.begin]
        self._seen += len(losses)
        self._levels += [level(loss) for loss in losses.tolist() if math.isfinite(loss)]
        return self._seen >= STEPS

    @property
    def came_down(self):
        """Whether the loss of these steps is below `limit`."""
        return bool(self._levels) and bool(np.mean(self._levels[:STEPS]) < self.limit)
