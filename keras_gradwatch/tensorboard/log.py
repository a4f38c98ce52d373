"""What of the drained rows goes to TensorBoard, and when."""

import collections
import math
import os
import re
import time

import numpy as np

from keras_gradwatch.methods import local_directory, whole
from keras_gradwatch.records.events import tripped
from keras_gradwatch.records.rows import HALTED, OVERFLOWED
from keras_gradwatch.statistics.histograms import edges_of
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard import tags
from keras_gradwatch.tensorboard.events import as_markdown
from keras_gradwatch.tensorboard.layout import scalars_layout
from keras_gradwatch.tensorboard.norms import NormLog
from keras_gradwatch.tensorboard.writer import EventWriter
from keras_gradwatch.tensors.processes import is_chief

# Seconds after which the heatmap is drawn again, however few steps there were.
REDRAW = 10.0
# Steps before and after an event of which each has a point.
AROUND = 50
# Seconds between two readings from which on points do not wait for an event.
SLOW = 10.0


class GradientLog:
    """Writes rows as TensorBoard scalars, histograms, text and a heatmap.

    A point is written for every `update_freq`-th step, for the first and the last one,
    for each step with an event, and for the `AROUND` steps before and after it. A tag's
    points must ascend: the newest rows wait, in case an event comes.

    Args:
        log_dir: Directory of the run; the event files go to `gradwatch` in it, so that
            `keras.callbacks.TensorBoard` can write to the same one.
        update_freq: Steps between two points, >= 1; None: at the end of each epoch.
        owner: The object that the user has made, for messages.
        per_variable: Whether every statistic of every variable is written, too.
        histogram_freq: Steps between two histograms of the gradients; 0: none.
        include: Regular expression, or a list of them, that a variable's path must
            match somewhere to be written by itself; None: all.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, log_dir, update_freq, per_variable, histogram_freq, include, owner
    ):
        log_dir = local_directory(owner, "log_dir", log_dir)
        self.log_dir = os.path.join(log_dir, "gradwatch")
        self.update_freq = update_freq
        self.histogram_freq = whole(owner, "histogram_freq", histogram_freq)
        self.per_variable = bool(per_variable)
        self.include = _patterns(include)
        self._norms = NormLog()
        self._sections = {}  # layer -> its section
        self._report = -1, ""  # the last one: its step, and its text
        self._writer = None
        self._drawn, self._drawn_at, self._eventful = -1, -REDRAW, False

    def begin(self, first_step):
        """Opens an event file whose first step will be `first_step`.

        Of several processes, one writes.

        Raises:
            ValueError: If `log_dir` cannot be written.
        """
        self.close()
        if not is_chief():
            return
        self._writer = EventWriter(self.log_dir, first_step)
        self._writer.layout(scalars_layout())
        self._begin_window()
        # The newest rows: `(rows, index, whether something tripped, has a point)`.
        self._unwritten = collections.deque()
        self._read_at = time.monotonic()
        self._dense_until = first_step
        self._histogram_step = first_step - 1
        self._first = first_step
        if first_step <= self._drawn:  # another run
            self._drawn, self._sections = -1, {}
        self._report = -1, ""

    def _begin_window(self):
        self._steps = self._clipped = self._bad = self._explosions = 0
        self._held = 0
        self._overflows = 0
        self._largest = np.nan

    def write(self, rows, events, histograms=None, epoch=None):
        """Takes drained rows, their events, and the newest histograms if any.

        Args:
            rows: `Rows`.
            events: List of their `Event`s.
            histograms: `(step, names, values)`, as the monitor gives it, or None.
            epoch: Their epoch, from 1; None: not known.
        """
        if self._writer is None:
            return
        self._norms.add(rows)
        if self.per_variable or self.histogram_freq:
            names, sizes = rows.layout.variables, rows.layout.sizes
            self._sections = tags.sections(names, sizes, self._sections)
        told = {}
        for event in events:
            told.setdefault(event.step, []).append(event)
        bad = {event.step for event in tripped(events)}
        self._eventful |= bool(events)
        for t, step in enumerate(rows.steps.tolist()):
            if rows.scalars["halted"][t] == HALTED:
                continue
            if step in told:
                self._dense_until = step + AROUND
            due = bool(self.update_freq) and step % self.update_freq == 0
            self._unwritten.append((rows, t, step in bad, due))
            if step <= self._dense_until:
                self._settle(dense=True)
            elif len(self._unwritten) > AROUND:
                self._pass(*self._unwritten.popleft())
            if step in told:
                # One text a step: TensorBoard shows the last of several only.
                self._writer.text(tags.EVENTS, step, as_markdown(told[step], epoch))
        if histograms is not None and histograms[0] > self._histogram_step:
            self._write_histograms(*histograms)
        now = time.monotonic()
        if now - self._read_at > SLOW:
            self._settle()
        self._read_at = now
        self._writer.flush()

    def end_epoch(self):
        """The last step has a point, where there is one at the end of each epoch."""
        if self.update_freq is None:
            self._mark_last()

    def _mark_last(self):
        if self._writer is not None and self._unwritten:
            rows, t, bad, _ = self._unwritten.pop()
            self._unwritten.append((rows, t, bad, True))

    def _settle(self, dense=False):
        """Lets no row wait any more; each has a point where it is `dense`."""
        while self._unwritten:
            rows, t, bad, due = self._unwritten.popleft()
            self._pass(rows, t, bad, dense or due)

    def _pass(self, rows, t, bad, due):
        self._count(rows, t, bad)
        if due:
            self._point(rows, t)

    def heatmap(self, step, last=False):
        """Writes the layer × step heatmap of all norms so far, under `step`.

        Where one `fit` follows another, the picture is drawn again once there are half
        as many steps more, after an event, and after `REDRAW` seconds. Where it was
        drawn in this `fit`, it is drawn again with its `last` step.
        """
        if self._writer is None or step <= self._drawn:
            return
        now = time.monotonic()
        more = step + 1 >= 1.5 * (self._drawn + 1)
        more |= last and self._drawn >= self._first
        if not (more or self._eventful or now - self._drawn_at > REDRAW):
            return
        self._drawn_at, self._eventful = now, False
        picture = self._norms.picture()
        if picture is not None:
            self._drawn = step
            self._writer.image(tags.HEATMAP, step, picture)
            self._writer.flush()

    def report(self, step, markdown):
        """Writes a report that is another one than the last.

        Where that was written under `step`, too, this one is under the step after it.
        """
        if self._writer is None or (step, markdown) == self._report:
            return
        self._report = max(step, self._report[0] + 1), markdown
        self._writer.text(tags.REPORT, *self._report)
        self._writer.flush()

    def close(self):
        """Writes the last step, if it was not written yet, and closes the file."""
        if self._writer is None:
            return
        self._mark_last()
        self._settle()
        self._writer.close()
        self._writer = None

    def _count(self, rows, t, bad):
        self._steps += 1
        self._clipped += rows.scalars["clipped"][t]
        self._held += rows.scalars["held"][t] > 0
        self._bad += np.nansum(rows.statistic("nonfinite_count")[t])
        self._explosions += bad
        self._overflows += rows.scalars["outcome"][t] == OVERFLOWED
        self._largest = np.fmax(self._largest, _finite(rows.scalars["global_norm"][t]))

    def _point(self, rows, t):
        """Writes a point for a row, with the sums of all rows since the last one."""
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
            for v, name in self._included(rows.layout.variables):
                found = dict(zip(NAMES, matrix[v], strict=True))
                found["norm_log10"] = _log10(found["norm"])
                for statistic, value in found.items():
                    values[tags.variable(self._sections, name, statistic)] = value
        # A NaN point is invisible in the dashboard, and an infinite one hides the rest.
        finite = {tag: v for tag, v in values.items() if np.isfinite(v)}
        self._writer.scalars(int(rows.steps[t]), finite)
        self._begin_window()

    def _write_histograms(self, step, names, values):
        self._histogram_step, edges = step, edges_of(values)
        for v, name in self._included(names):
            tag = tags.variable(self._sections, name, "gradient")
            self._writer.histogram(tag, step, values[v, :-2], edges[v])

    def _included(self, names):
        for v, name in enumerate(names):
            if not self.include or any(p.search(name) for p in self.include):
                yield v, name


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
