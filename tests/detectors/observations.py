"""Steps made by hand, and a loop that has a detector observe them."""

import math

import numpy as np

from keras_gradwatch.detectors import Observation
from keras_gradwatch.detectors.checks import checked_limits, checked_observe

# Two hidden layers of 10 units and 2 outputs: kernel, bias, kernel, bias, ...
SIZES = (40, 10, 100, 10, 20, 2)
KERNELS = (1, 0, 1, 0, 1, 0)


def observation(
    step=0,
    *,
    loss=1.0,
    global_norm=1.0,
    norms=None,
    finite=True,
    kernels=KERNELS,
    sizes=None,
    loss_scale=math.nan,
    limits=None,
    **statistics,
):
    """One step; further arguments are statistics, which are else not measured."""
    count = len(kernels)
    return Observation(
        step=step,
        loss=float(loss),
        global_norm=float(global_norm),
        norms=np.ones(count) if norms is None else np.array(norms, float),
        finite=finite,
        sizes=np.array(SIZES[:count] if sizes is None else sizes, float),
        kernels=np.array(kernels, bool),
        statistics={name: np.array(v, float) for name, v in statistics.items()},
        loss_scale=loss_scale,
        learning_rate=0.001,
        limits={} if limits is None else limits,
    )


class Watch:
    """Has a detector observe steps as a run would, and notes where it trips.

    Args:
        detector: The detector.
        every: Steps after which the limits are drawn again. None: none are in force.
        kernels: Which variables are kernels.
    """

    def __init__(self, detector, every=None, kernels=KERNELS):
        self.detector, self.every, self.kernels = detector, every, kernels
        self.state = detector.initial_state(len(kernels))
        self.step, self.tripped, self.verdict, self.limits = 0, [], None, {}

    def __call__(self, count=1, **step):
        """Observes a step `count` times; a step that is not finite is left out."""
        for _ in range(count):
            if self.every and self.step % self.every == 0:
                self.limits = checked_limits(self.detector, self.state)
            seen = observation(
                self.step, kernels=self.kernels, limits=self.limits, **step
            )
            if np.isfinite([seen.global_norm, seen.loss]).all():
                verdict = checked_observe(self.detector, seen, self.state)
                if verdict is not None:
                    self.tripped.append(self.step)
                    self.verdict = verdict
            finite = [np.isfinite(value).all() for value in self.state.values()]
            assert all(finite), self.state
            self.step += 1

    def sequence(self, name, values):
        """Observes steps that differ in one thing; the steps that tripped."""
        for value in values:
            self(**{name: value})
        return self.tripped
