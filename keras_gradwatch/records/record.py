"""Writing the record of a run, when the ring is drained."""

import contextlib
import os
import time
import weakref

import numpy as np

from keras_gradwatch.records import record_file
from keras_gradwatch.records.incidents import RECORD, begins
from keras_gradwatch.records.thinning import near

# Seconds, and rows, after which what was drained is written.
PAUSE, FULL = 0.2, 256
# The file is thinned out when it holds so many times what is left of it, or so many
# bytes of reports that later ones have replaced.
SLACK, MAX_WASTE = 1.5, 500_000
# Steps around the begin of an incident in which statistics are kept in any case.
SAMPLED = 2

# monitor -> {directory: its Record}
_records: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def record_of(monitor, directory):
    """Returns the `Record` of a monitor in a directory, shared by all `fit` calls."""
    directory = os.path.abspath(directory)
    own = _records.setdefault(monitor, {})
    return own.setdefault(directory, Record(directory))


class Record:
    """Appends rows, samples, events and reports to `record.gwr` in a directory.

    Rows are buffered for 0.2 s, unless an incident begins. The file is thinned out when
    it exceeds 1.5 times what thinning leaves.
    """

    def __init__(self, directory):
        self.path = os.path.join(directory, RECORD)
        self._size = None  # of the file, as it was left
        self._forget()

    def _forget(self):
        self._rows, self._events = [], []  # what was not written yet
        self._histograms = {}
        self._waiting, self._written_at = 0, time.monotonic()
        self._next = 0  # the first step that is not in the record
        self._last_event, self._onsets = None, []
        self._variables, self._report_size = (), 0
        self._count(record_file.Contents())

    def _count(self, contents):
        samples = contents.samples["step"]
        self._counts = {
            "rows": len(contents.rows),
            "samples": len(samples),
            "events": len(contents.events),
            "histograms": len(contents.histograms),
        }
        self._last_histogram = max(contents.histograms, default=-1)
        self._waste = 0
        # Samples are no closer than those that were left.
        self._stride = int(np.median(np.diff(samples))) if len(samples) > 1 else 1
        self._next_sample = samples[-1] + self._stride if len(samples) else 0

    def begin(self, step, resumed=False):
        """Begins a `fit`; raises OSError if the directory cannot be written.

        From the file of another process, a resumed run keeps the steps before `step`;
        any other run removes it.
        """
        size = self._size_on_disk()
        if size == self._size and size is not None:
            self.flush()
            return
        self._forget()
        if size is None:
            return
        if resumed:
            try:
                contents = record_file.read(self.path)
            except ValueError:  # of another version, or damaged
                contents = None
            if contents is not None:
                contents.before(step)
                self._next = step
                self._put(contents)
                return
        os.remove(self.path)

    def add(self, rows, events, histograms=None):
        """Adds drained `Rows`, events, and histograms `(step, names, [V, 32])`."""
        if rows.steps[0] < self._next:
            return  # of another callback with the same directory
        if self._rows and self._rows[0].layout is not rows.layout:
            self.flush()
        self._rows.append(rows)
        self._events += events
        if histograms is not None and histograms[0] > self._last_histogram:
            self._last_histogram = histograms[0]
            self._histograms[histograms[0]] = histograms[1:]
        self._waiting += len(rows)
        self._next = int(rows.steps[-1]) + 1
        for event in events:
            if begins(event.step, self._last_event):
                self._onsets.append(event.step)
            self._last_event = event.step
        late = time.monotonic() - self._written_at > PAUSE
        if self._onsets or late or self._waiting >= FULL:
            self.flush()

    def flush(self):
        """Writes what is buffered."""
        if self._rows:
            self._append()

    def report(self, report):
        """Writes what is buffered, and a report, a dict of plain data."""
        self._append(report)

    def _append(self, report=None):
        names = self._rows[0].layout.variables if self._rows else ()
        if self._size is None or self._size_on_disk() != self._size:
            # The first block, or somebody has removed or replaced the file.
            contents = record_file.Contents()
            contents.widen(names)
            self._put(contents)
        elif not set(names) <= set(self._variables):
            contents = record_file.read(self.path)
            contents.widen(names)
            self._put(contents)
        rows, samples = self._collected()
        histograms = {
            step: self._placed(*found) for step, found in self._histograms.items()
        }
        data = record_file.blocks(rows, samples, self._events, report, histograms)
        self._write(data)
        self._counts["rows"] += len(rows)
        self._counts["samples"] += len(samples)
        self._counts["events"] += len(self._events)
        self._counts["histograms"] += len(histograms)
        if report is not None:
            self._waste += self._report_size
            self._report_size = len(data)
        self._rows, self._events, self._onsets = [], [], []
        self._histograms = {}
        self._waiting, self._written_at = 0, time.monotonic()
        if self._is_long():
            contents = record_file.read(self.path)
            contents.thin()
            self._put(contents)

    def _write(self, data):
        try:
            with open(self.path, "ab") as file:
                file.write(data)
        except OSError:
            # A part of a block must not stand before later ones.
            with contextlib.suppress(OSError):
                os.truncate(self.path, self._size)
            raise
        self._size += len(data)

    def _put(self, contents):
        record_file.write(self.path, contents)
        self._size = self._size_on_disk()
        self._variables = contents.variables
        self._count(contents)

    def _size_on_disk(self):
        try:
            return os.path.getsize(self.path)
        except OSError:
            return None

    def _is_long(self):
        most = record_file.limits(len(self._variables))
        too_many = any(self._counts[name] > SLACK * most[name] for name in most)
        return too_many or self._waste > MAX_WASTE

    def _collected(self):
        """Returns the buffered rows and samples, arrays as in `Contents`."""
        parts, width = self._rows, len(self._variables)
        if not parts:
            return (), ()
        names = parts[0].layout.variables
        places = slice(None)
        if names != self._variables:
            places = [self._variables.index(name) for name in names]
        rows = record_file.rows_of(self._waiting, width)
        rows["step"] = np.concatenate([part.steps for part in parts])
        for i, name in enumerate(record_file.COLUMNS):
            rows["scalars"][:, i] = np.concatenate([p.scalars[name] for p in parts])
        bad = self._joined("nonfinite_count") > 0
        # What is not finite must not look like what was not measured.
        norms = np.where(bad, np.float32(np.inf), self._joined("norm"))
        rows["norms"][:, places] = norms
        known = {
            name: self._joined(name)
            for name in record_file.STATISTICS
            if any(name in (*p.layout.statistics, *p.added) for p in parts)
        }
        chosen = self._sampled(rows["step"], known)
        samples = record_file.samples_of(len(chosen), width)
        samples["step"] = rows["step"][chosen]
        for name, values in known.items():
            k = record_file.STATISTICS.index(name)
            samples["values"][:, k, places] = values[chosen]
        return rows, samples

    def _placed(self, names, values):
        """Expands histograms of some variables to all, NaN for the others."""
        placed = np.full((len(self._variables), record_file.HISTOGRAM), np.nan, "<f4")
        placed[[self._variables.index(name) for name in names]] = values
        return placed

    def _joined(self, name):
        """Returns a statistic of all buffered rows, [T, V], NaN if not measured."""
        return np.concatenate([part.statistic(name) for part in self._rows])

    def _sampled(self, steps, known):
        """Returns the indices of the steps whose statistics are kept, a list."""
        measured = np.zeros(len(steps), bool)
        for name, values in known.items():
            always = name == "nonfinite_count"
            found = values > 0 if always else ~np.isnan(values)
            measured |= found.any(axis=1)
        wanted = near(steps, np.array(self._onsets, np.int64), SAMPLED)
        chosen = []
        for t in np.flatnonzero(measured):
            if wanted[t] or steps[t] >= self._next_sample:
                chosen.append(t)
                self._next_sample = steps[t] + self._stride
        return chosen
