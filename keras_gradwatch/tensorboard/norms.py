"""The norms of a whole run in bounded memory, for the heatmap."""

import numpy as np

from keras_gradwatch.tensorboard.heatmap import render

MAX_COLUMNS = 1024


class NormLog:
    """Keeps the norms of all variables over all steps, coarser as the run grows.

    Beyond `MAX_COLUMNS`, adjacent columns are merged by maximum: no spike is lost.
    """

    def __init__(self):
        self._columns, self._names, self._first = None, (), 0
        self._stride = 1  # steps that one column stands for
        self._open = []  # steps of the column that is not full yet

    def add(self, rows):
        """Adds new `Rows`; different variables than before start a new log."""
        if not rows.layout.variables:
            return
        if self._names != rows.layout.variables:
            self.__init__()
            self._names, self._first = rows.layout.variables, int(rows.steps[0])
            self._columns = np.zeros((0, len(self._names)), "float32")
        norms = rows.statistic("norm").copy()
        # A gradient that is not finite must not look like one that is not measured.
        norms[rows.statistic("nonfinite_count") > 0] = np.inf
        self._open.extend(norms)
        full = len(self._open) // self._stride * self._stride
        if not full:
            return
        steps = np.asarray(self._open[:full])
        self._open = self._open[full:]
        new = np.fmax.reduce(steps.reshape(-1, self._stride, len(self._names)), axis=1)
        self._columns = np.concatenate([self._columns, new])
        while len(self._columns) > MAX_COLUMNS:
            self._merge()

    def _merge(self):
        pairs = len(self._columns) // 2 * 2
        if pairs < len(self._columns):
            rest = np.repeat(self._columns[-1:], self._stride, axis=0)
            self._open = [*rest, *self._open]
        merged = np.fmax(self._columns[:pairs:2], self._columns[1:pairs:2])
        self._columns, self._stride = merged, self._stride * 2

    def picture(self):
        """Returns the heatmap, uint8 [H, W, 3]; None if nothing was measured."""
        if self._columns is None or not self._names:
            return None
        columns = self._columns
        if self._open:
            columns = np.concatenate([columns, np.fmax.reduce(self._open)[None]])
        return render(columns, self._names, self._first, self._stride)
