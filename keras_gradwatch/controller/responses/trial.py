"""A trial of unlimited updates, while the trust region limits a run."""

import math

import numpy as np

from keras_gradwatch.controller.responses.snapshot import Snapshot
from keras_gradwatch.controller.responses.trust import level

# Steps of a trial. It ends with the epoch, and has at least `LEAST` steps, and as many
# known losses before it.
STEPS, LEAST = 20, 5
# Losses before it that it is compared with, the newest ones: those of limited updates
# often fall, so that the older ones are high.
NEWEST = 10
# A loss that exceeds all of those before the trial by this factor ends it.
FAR = 10.0


class Trial:
    """Makes unlimited updates for a while, and compares the losses with those before.

    Formula: the trial succeeds if the mean log loss of its `STEPS` steps is less than
    that of the `NEWEST` steps before, whose updates were limited. It fails early if the
    mean is above by the logarithm of 2 after `LEAST` steps, at a loss of more than
    `FAR` times the largest of those before (`bound`), or at two steps in a row that are
    not finite. Then the run continues from the `start` of the trial, a `Snapshot`.

    A trial that has succeeded still fails (`relapses`) once the mean log loss of the
    `NEWEST` steps is above that of the steps before the trial by two standard errors.
    """

    def __init__(self, controller, losses):
        self.start = Snapshot(controller)
        self._left = min(STEPS, controller.steps_left)
        newest = losses[-NEWEST:]
        levels = [level(loss) for loss in newest]
        self._before = np.mean(levels)
        # Standard error of the difference to the mean of as many other losses.
        self._error = np.std(levels, ddof=1) * math.sqrt(2 / len(levels))
        self.bound = FAR * max(abs(loss) for loss in newest)
        self._levels, self._nonfinite = [], 0

    def relapses(self, loss):
        """Adds a step after the success; returns whether the trial fails after all."""
        if math.isfinite(loss):
            self._levels.append(level(loss))
        more = np.mean(self._levels[-NEWEST:]) - self._before
        return bool(more > 2 * self._error)

    def succeeds(self, loss, finite):
        """Adds a step; returns whether the trial has succeeded, None if unknown."""
        self._left -= 1
        self._nonfinite = 0 if finite else self._nonfinite + 1
        if self._nonfinite > 1 or (finite and loss > self.bound):
            return False
        if finite:
            self._levels.append(level(loss))
        more = np.mean(self._levels) - self._before if self._levels else math.inf
        if self._left > 0:
            return False if len(self._levels) >= LEAST and more > math.log(2) else None
        return bool(more < 0)
