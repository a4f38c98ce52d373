"""What is written to TensorBoard, and when."""

import os
import time

from keras_gradwatch.methods import local_path, whole
from keras_gradwatch.statistics.histograms import edges_of
from keras_gradwatch.tensorboard import tags
from keras_gradwatch.tensorboard.events import as_markdown
from keras_gradwatch.tensorboard.layout import scalars_layout
from keras_gradwatch.tensorboard.norms import NormLog
from keras_gradwatch.tensorboard.writer import EventWriter
from keras_gradwatch.tensors.processes import is_chief

# Seconds after which the heatmap is drawn again, however few steps there were.
REDRAW = 10.0


class GradientLog:
    """Writes rows as TensorBoard scalars, histograms, text and a heatmap.

    Event files go to the subdirectory `gradwatch` of `log_dir`, so that
    `keras.callbacks.TensorBoard` can use the same directory. With `histogram_freq` 0
    there are no histograms; `owner` is the user's object, for messages.
    """

    def __init__(self, log_dir, points, histogram_freq, owner):
        log_dir = local_path(owner, "log_dir", log_dir)
        self.log_dir = os.path.join(log_dir, "gradwatch")
        self.points = points
        self.histogram_freq = whole(owner, "histogram_freq", histogram_freq)
        self._norms = NormLog()
        self._report = -1, ""  # the last one: its step, and its text
        self._writer = None
        self._drawn, self._drawn_at, self._eventful = -1, -REDRAW, False

    def begin(self, first_step):
        """Opens an event file that starts at `first_step`, in the chief process."""
        self.close()
        if not is_chief():
            return
        self._writer = EventWriter(self.log_dir, first_step)
        self._writer.layout(scalars_layout())
        self.points.begin(first_step, self._writer.scalars)
        self._histogram_step = first_step - 1
        self._first = first_step
        if first_step <= self._drawn:  # another run
            self._drawn = -1
        self._report = -1, ""

    def write(self, rows, events, histograms=None, epoch=None):
        """Writes rows that were read, their events, and the newest histograms.

        `histograms` is `(step, names, values)` or None; `epoch` counts from 1.
        """
        if self._writer is None:
            return
        self._norms.add(rows)
        self._eventful |= bool(events)
        self.points.add(rows, events)
        told = {}
        for event in events:
            told.setdefault(event.step, []).append(event)
        for step, own in told.items():
            # One text a step: TensorBoard shows the last of several only.
            self._writer.text(tags.EVENTS, step, as_markdown(own, epoch))
        if histograms is not None and histograms[0] > self._histogram_step:
            self._write_histograms(*histograms)
        self._writer.flush()

    def heatmap(self, step, last=False):
        """Writes the heatmap of the norms so far, variable × step, under `step`.

        It is redrawn once the number of steps has grown by half, after an event, and
        after `REDRAW` seconds; if it was drawn in this `fit`, also at its `last` step.
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
        """Writes a report, unless it is the last one again, at the same step.

        If the last report has this step, or a later one, uses the step after it.
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
        self.points.end()
        self._writer.close()
        self._writer = None

    def _write_histograms(self, step, names, values):
        self._histogram_step, edges = step, edges_of(values)
        for v, tag in self.points.included(names):
            self._writer.histogram(tag("gradient"), step, values[v, :-2], edges[v])
