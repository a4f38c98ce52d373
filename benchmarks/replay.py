"""Recorded steps, judged as `GradWatch()` judges a run: step by step, on the host."""

import math
from typing import NamedTuple

import numpy as np

from keras_gradwatch.detectors import NonFinite, Observation
from keras_gradwatch.detectors.checks import checked_limits, checked_observe
from keras_gradwatch.statistics.names import NAMES

# Every step is read so long from the first one, and again from each event, ...
DENSE = 100
# ... and so many steps at a time in between.
APART = 50


class Steps(NamedTuple):
    """What was recorded of T steps of a run with V variables.

    Attributes:
        norm: Array [T], the global norm.
        loss: Array [T], each step's own.
        statistics: Array [T, V, 8], columns as in `statistics.names.NAMES`.
        sizes: Array [V], numbers of elements.
        kernels: Array [V], True where a variable has two or more axes.
    """

    norm: object
    loss: object
    statistics: object
    sizes: object
    kernels: object

    def observations(self):
        """Yields an `Observation` of each step."""
        # Recorded, and compared, in float32.
        norm, loss = (np.asarray(a, "float32").tolist() for a in self[:2])
        for step, seen in enumerate(zip(norm, loss, self.statistics, strict=True)):
            columns = dict(zip(NAMES, seen[2].T, strict=True))
            yield Observation(
                step=step,
                loss=seen[1],
                global_norm=seen[0],
                norms=columns["norm"],
                finite=math.isfinite(seen[0]) and math.isfinite(seen[1]),
                sizes=self.sizes,
                kernels=self.kernels,
                statistics=columns,
                loss_scale=math.nan,
                learning_rate=math.nan,
                limits={},
            )


def alarms_of(detectors, steps):
    """The steps in which detectors trip that watch a run together.

    The limits that are in force in a step were drawn when steps were last read: after
    each step at first and after an event; else after every 50th one, and after a step
    that is beyond them. The run goes on as it was recorded, whatever would be skipped.

    Args:
        detectors: List of detectors, each of a class of its own.
        steps: `Steps`.

    Returns:
        Dict of a detector's class name to its alarms, bool array [T].
    """
    count = len(steps.norm)
    alarms = {type(d).__name__: np.zeros(count, bool) for d in detectors}
    watched = [
        (d, d.initial_state(len(steps.sizes)), alarms[type(d).__name__])
        for d in detectors
    ]
    attentive_until, unread, tripped = DENSE, 0, False
    limits, gate = _drawn(watched)
    for seen in steps.observations():
        for (detector, state, own), drawn in zip(watched, limits, strict=True):
            # Of a step that is not finite only `NonFinite` is asked, and of others not.
            if seen.finite != isinstance(detector, NonFinite):
                verdict = checked_observe(detector, seen._replace(limits=drawn), state)
                if verdict is not None:
                    own[seen.step] = tripped = True
        unread += 1
        alert = not seen.finite or any(seen.crossed(drawn) for drawn in gate)
        if seen.step < attentive_until or unread == APART or alert:
            if tripped:
                attentive_until = seen.step + 1 + DENSE
            limits, gate = _drawn(watched)
            unread, tripped = 0, False
    return alarms


def _drawn(watched):
    """Each detector's limits, and what of them is checked within a step."""
    limits = [checked_limits(detector, state) for detector, state, _ in watched]
    # An update is measured after the step, by the host.
    gate = [
        {name: pair for name, pair in drawn.items() if name != "update_ratio"}
        for drawn in limits
    ]
    return limits, [drawn for drawn in gate if drawn]
