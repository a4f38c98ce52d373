"""Free updates on trial, while a run is under the trust region."""

import numpy as np

from keras_gradwatch.controller.responses.trust import level

# Steps of a trial.
STEPS = 20
# A loss that exceeds all of those before the trial by this factor ends it.
FAR = 10.0


class Trial:
    """Lets updates be free for a while, and compares the losses with those before.

    Formula: the trial succeeds if the mean log loss of its `STEPS` steps exceeds that
    of the steps before, whose updates were held, by no more than the standard error of
    the difference. It fails earlier at a loss of more than `FAR` times the largest of
    them, or at two steps in a row that are not finite. Then the run continues from
    where the trial began.

    Args:
        controller: The `Controller`.
        losses: Losses of the steps before, a list of floats.

    Attributes:
        begin: The first step of the trial.
        bound: The loss beyond which it fails.
    """

    def __init__(self, controller, losses):
        self.begin = controller.step
        self._variables = controller.harmed()
        self._copies = controller.access.host_copies(self._variables)
        self._before = [level(loss) for loss in losses]
        self.bound = FAR * max(abs(loss) for loss in losses)
        self._levels, self._nonfinite = [], 0

    def succeeds(self, loss, finite):
        """Takes in a step.

        Args:
            loss: Its loss.
            finite: Whether its gradients and its loss are finite.

        Returns:
            Whether the trial has succeeded, a bool; None while it is not known.
        """
        if not finite:
            self._nonfinite += 1
            return False if self._nonfinite > 1 else None
        self._nonfinite = 0
        if loss > self.bound:
            return False
        self._levels.append(level(loss))
        if len(self._levels) < STEPS:
            return None
        before, now = np.array(self._before), np.array(self._levels)
        error = np.sqrt(before.var() / len(before) + now.var() / len(now))
        return bool(now.mean() <= before.mean() + error)

    def put_back(self, controller):
        """Puts weights, optimizers and state back to where the trial began."""
        controller.access.put_host_copies(self._variables, self._copies)
