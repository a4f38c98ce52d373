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
    """Converts rows to points, the same ones for TensorBoard and the loggers.

    There is a point for every `update_freq`-th step (None: one per epoch), for the
    first and last step, and for each step with an event and the `AROUND` steps before
    and after it. As the points of a tag must ascend, the newest rows wait in case an
    event follows.

    `include` (None: all) selects the variables to log individually, by regular
    expressions searched in their paths. Points have their statistics only with
    `per_variable`.
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
        """Starts or continues a run; `emit(step, dict of floats)` gets each point."""
        if first_step < self._end:  # another run
            self._layout, self._sections = None, {}
        self._emit = emit
        self._waiting.clear()
        self._begin_window()
        self._read_at = time.monotonic()
        self._dense_until = first_step

    def _begin_window(self):
        self._steps = self._clipped = self._bad = self._explosions = 0
        self._held = self._overflows = 0
        self._largest = np.nan

    def add(self, rows, events):
        """Adds rows that were read, and their events."""
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
        """Makes the last step a point if there is one per epoch."""
        if self.update_freq is None:
            self._mark_last()

    def end(self):
        """Makes the remaining points, including one for the last step."""
        self._mark_last()
        self._settle()
        self._emit = None

    def _mark_last(self):
        if self._waiting:
            rows, t, bad, _ = self._waiting.pop()
            self._waiting.append((rows, t, bad, True))

    def _settle(self, dense=False):
        """Processes all waiting rows; if `dense`, each of them is a point."""
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
        norm = rows.scalars["global_norm"][t]
        if np.isfinite(norm):
            self._largest = np.fmax(self._largest, norm)

    def _point(self, rows, t):
        """Makes a row a point, with the sums over all rows since the last point."""
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
            for v, tag in self.included(rows.layout.variables):
                found = {name: rows.statistic(name)[t, v] for name in NAMES}
                found["norm_log10"] = _log10(found["norm"])
                for statistic, value in found.items():
                    values[tag(statistic)] = value
        # A NaN point is invisible in the dashboard, and an infinite one hides the rest.
        finite = {tag: float(v) for tag, v in values.items() if np.isfinite(v)}
        self._emit(int(rows.steps[t]), finite)
        self._begin_window()

    def included(self, names):
        """Returns `(index, tag)` of the variables to log, with `tag(statistic)`."""
        return [
            (v, functools.partial(tags.variable, self._sections, name))
            for v, name in enumerate(names)
            if not self.include or any(p.search(name) for p in self.include)
        ]


def _log10(value):
    """Returns log10, NaN if the value is not positive and finite."""
    return math.log10(value) if 0 < value < math.inf else math.nan


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
