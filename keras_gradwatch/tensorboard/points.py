"""Which steps of a run have a point, and the scalars of each."""

import collections
import functools
import math
import re
import time

import numpy as np

from keras_gradwatch.records.events import tripped
from keras_gradwatch.records.rows import HALTED, OVERFLOWED
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard import tags

# Steps before and after an event of which each has a point.
AROUND = 50
# Seconds between two readings from which on points do not wait for an event.
SLOW = 10.0


class Points:
    """Turns rows into points, which TensorBoard and the loggers get alike.

    A point is made for every `update_freq`-th step, for the first and the last one,
    for each step with an event, and for the `AROUND` steps before and after it. A tag's
    points must ascend: the newest rows wait, in case an event comes.

    Args:
        update_freq: Steps between two points, >= 1; None: at the end of each epoch.
        per_variable: Whether a point has every statistic of every variable, too.
        include: Regular expression, or a list of them, that a variable's path must
            match somewhere to be logged by itself; None: all.

    Raises:
        ValueError: If `include` is no regular expression.
    """

    def __init__(self, update_freq, per_variable=False, include=None):
        self.update_freq = update_freq
        self.per_variable = bool(per_variable)
        self.include = _patterns(include)
        self._layout, self._sections = None, {}  # layer -> its section
        self._end = 0
        self._emit = None
        # The newest rows: `(rows, index, whether something tripped, has a point)`.
        self._waiting = collections.deque()

    def begin(self, first_step, emit):
        """Begins a run, or goes on with it.

        Args:
            first_step: Its first step.
            emit: Function that is called with each point: the step, and a dict of the
                finite values, from tag to float.
        """
        if first_step < self._end:  # another run
            self._layout, self._sections = None, {}
        self._emit = emit
        self._waiting.clear()
        self._begin_window()
        self._read_at = time.monotonic()
        self._dense_until = first_step

    def _begin_window(self):
        self._steps = self._clipped = self._bad = self._explosions = 0
        self._held = 0
        self._overflows = 0
        self._largest = np.nan

    def add(self, rows, events):
        """Takes drained `Rows`, and their events."""
        self._end = int(rows.steps[-1]) + 1
        if rows.layout is not self._layout:
            self._layout = rows.layout
            names, sizes = rows.layout.variables, rows.layout.sizes
            self._sections = tags.sections(names, sizes, self._sections)
        told = {event.step for event in events}
        bad = {event.step for event in tripped(events)}
        for t, step in enumerate(rows.steps.tolist()):
            if rows.scalars["halted"][t] == HALTED:
                continue
            if step in told:
                self._dense_until = step + AROUND
            due = bool(self.update_freq) and step % self.update_freq == 0
            self._waiting.append((rows, t, step in bad, due))
            if step <= self._dense_until:
                self._settle(dense=True)
            elif len(self._waiting) > AROUND:
                self._pass(*self._waiting.popleft())
        now = time.monotonic()
        if now - self._read_at > SLOW:
            self._settle()
        self._read_at = now

    def end_epoch(self):
        """The last step has a point, where there is one at the end of each epoch."""
        if self.update_freq is None:
            self._mark_last()

    def end(self):
        """Makes the points that are due, and one of the last step."""
        self._mark_last()
        self._settle()
        self._emit = None

    def _mark_last(self):
        if self._waiting:
            rows, t, bad, _ = self._waiting.pop()
            self._waiting.append((rows, t, bad, True))

    def _settle(self, dense=False):
        """Lets no row wait any more; each has a point where it is `dense`."""
        while self._waiting:
            rows, t, bad, due = self._waiting.popleft()
            self._pass(rows, t, bad, dense or due)

    def _pass(self, rows, t, bad, due):
        self._count(rows, t, bad)
        if due:
            self._point(rows, t)

    def _count(self, rows, t, bad):
        self._steps += 1
        self._clipped += rows.scalars["clipped"][t]
        self._held += rows.scalars["held"][t] > 0
        self._bad += np.nansum(rows.statistic("nonfinite_count")[t])
        self._explosions += bad
        self._overflows += rows.scalars["outcome"][t] == OVERFLOWED
        self._largest = np.fmax(self._largest, _finite(rows.scalars["global_norm"][t]))

    def _point(self, rows, t):
        """Makes a point of a row, with the sums of all rows since the last one."""
        row = {name: float(values[t]) for name, values in rows.scalars.items()}
        norm, clipped = row["global_norm"], row["clipped_norm"]
        values = {
            tags.GRAD_NORM: norm,
            tags.GRAD_NORM_CLIPPED: clipped,
            tags.GRAD_NORM_MAX: self._largest,
            tags.GRAD_NORM_LOG10: _log10(norm),
            tags.GRAD_NORM_CLIPPED_LOG10: _log10(clipped),
            tags.CLIP_FACTOR: clipped / norm if norm > 0 else np.nan,
            tags.CLIPPED_SHARE: self._clipped / self._steps,
            tags.NONFINITE_COUNT: self._bad,
            tags.EXPLOSIONS: self._explosions,
            tags.LEARNING_RATE: row["learning_rate"],
            tags.LOSS: row["loss"],
            tags.TRUST_RADIUS: row["trust_radius"],
            tags.LOSS_SCALE: row["loss_scale"],
        }
        if np.isfinite(row["trust_radius"]):
            values[tags.HELD_SHARE] = self._held / self._steps
            values[tags.HELD_BACK] = row["held"]
        if np.isfinite(row["loss_scale"]):
            values[tags.OVERFLOWS] = self._overflows
        if self.per_variable:
            matrix = rows.all_statistics(t)
            for v, tag in self.included(rows.layout.variables):
                found = dict(zip(NAMES, matrix[v], strict=True))
                found["norm_log10"] = _log10(found["norm"])
                for statistic, value in found.items():
                    values[tag(statistic)] = value
        # A NaN point is invisible in the dashboard, and an infinite one hides the rest.
        finite = {tag: float(v) for tag, v in values.items() if np.isfinite(v)}
        self._emit(int(rows.steps[t]), finite)
        self._begin_window()

    def included(self, names):
        """Which variables are logged by themselves, and under which tags.

        Args:
            names: Names of variables, of those in the rows so far.

        Returns:
            List of pairs: index, and function from the name of a statistic to its tag.
        """
        return [
            (v, functools.partial(tags.variable, self._sections, name))
            for v, name in enumerate(names)
            if not self.include or any(p.search(name) for p in self.include)
        ]


def _log10(value):
    """log10, NaN where there is none."""
    return math.log10(value) if 0 < value < math.inf else math.nan


def _finite(value):
    return value if np.isfinite(value) else np.nan


def _patterns(include):
    if include is None:
        return []
    try:
        given = [include] if isinstance(include, str) else list(include)
        return [re.compile(pattern) for pattern in given]
    except (TypeError, re.error) as error:
        raise ValueError(
            "`include` must be a regular expression, a list of them, or None. "
            f"Received: include={include!r} ({error})"
        ) from error
