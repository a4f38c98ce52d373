"""Gradients in TensorBoard."""

import os
from collections.abc import Iterable

import keras
import numpy as np

from keras_gradwatch.callbacks.logging import Logging
from keras_gradwatch.callbacks.observing import ObservingCallback
from keras_gradwatch.callbacks.showing import Showing
from keras_gradwatch.loggers import Logger
from keras_gradwatch.methods import frequency
from keras_gradwatch.reports.forensics import Forensics
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard.log import GradientLog
from keras_gradwatch.tensorboard.points import Points


class GradientTensorBoard(Logging, Showing, ObservingCallback):
    """Logs the gradients of the real training steps to TensorBoard.

    It only observes. All detectors of `GradWatch` run; their events are logged, and
    `report()` explains them. The report and the incidents are written to files, as by
    `GradWatch`.

    The steps on the axis are training steps, counted over all `fit` calls. The run
    `gradwatch` in `log_dir` contains these tags:

    | tag | meaning |
    |---|---|
    | `gradwatch/grad_norm` | global gradient norm of the step, before clipping |
    | `gradwatch/grad_norm_clipped` | the same after clipping |
    | `gradwatch/grad_norm_max` | largest finite norm since the last point |
    | `gradwatch/grad_norm_log10`, `gradwatch/grad_norm_clipped_log10` | log₁₀ of the \
norms |
    | `gradwatch/clip_factor` | norm after / norm before clipping |
    | `gradwatch/clipped_share` | fraction of the steps since the last point that were \
clipped |
    | `gradwatch/nonfinite_count` | non-finite gradient values since the last point |
    | `gradwatch/explosions` | steps since the last point in which a detector tripped |
    | `gradwatch/learning_rate` | learning rate in effect in the step |
    | `gradwatch/loss` | the step's own loss |
    | `gradwatch/trust_radius` | limit on ‖Δw‖ / ‖w‖ of each kernel, \
while updates are limited |
    | `gradwatch/held_share` | fraction of the steps since the last point whose update \
was limited |
    | `gradwatch/held_back` | fraction of the step's update that was cut off |
    | `gradwatch/loss_scale` | loss scale of the step, if one is used |
    | `gradwatch/overflows` | overflows of a dynamic loss scale since the last point |
    | `gradwatch/heatmap` | picture: log₁₀ norm, variable × step |
    | `gradwatch/events` | text: the events of a step, with epoch and step |
    | `gradwatch/report` | text: the report |
    | `gradwatch_layer_<rank>_<layer>/<variable>/<statistic>` | with \
`per_variable=True`; the largest layer has rank 1 |
    | `gradwatch_layer_<rank>_<layer>/<variable>/gradient` | histogram, with \
`histogram_freq` > 0 |

    Args:
        log_dir: Local directory of the run; created if missing. If it contains another
            run, this run uses `run-2`, ... in it, or, under keras-tuner, one directory
            per trial.
        update_freq: Steps between two points, >= 1; `"batch"` for each step, `"epoch"`
            for one point per epoch, as in `keras.callbacks.TensorBoard`. The first and
            the last step, each step with an event and the steps around it are always
            written. Defaults to `50`.
        per_variable: Whether every statistic of every variable is logged, too.
            Defaults to `False`.
        histogram_freq: Steps between two histograms of the gradients, >= 0. If `0`,
            there are none. Defaults to `0`.
        include: Regular expression, or a list of them, searched in a variable's path.
            Only matching variables are logged individually. If `None`, all are.
            Defaults to `None`.
        log: `loggers.Logger`, or a list of them, which receives the same data as
            TensorBoard. Defaults to `None`.
        log_batches: Whether to add `grad_norm` and `explosions` to the batch logs,
            where every callback can read them. With `steps_per_execution` > 1, they
            are the mean and the sum over the steps of the execution. Each step is read
            before the next one begins. Defaults to `False`.
        owner: The callback whose name appears in messages. If `None`, this one.
            Defaults to `None`.

    Raises:
        ValueError: If an argument is out of its range, or, when `fit` begins, if
            `log_dir` cannot be written.

    Example:

    ```python
    board = keras_gradwatch.callbacks.GradientTensorBoard("logs", per_variable=True)
    model.fit(x, y, callbacks=[board])
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        update_freq: int | str = 50,
        per_variable: bool = False,
        histogram_freq: int = 0,
        include: str | Iterable[str] | None = None,
        log: Logger | list[Logger] | None = None,
        log_batches: bool = False,
        owner: object = None,
    ) -> None:
        super().__init__()
        freq = frequency(owner or self, update_freq)
        points = Points(freq, per_variable, include)
        self.log = GradientLog(log_dir, points, histogram_freq, owner or self)
        self._asked = self.log.log_dir
        # A point shows all statistics of its step.
        self.sample_freq = freq or 50
        # The newest histogram is kept on the device until it is drained.
        self.update_freq = min(50, freq or 50, histogram_freq or 50)
        self.set_log(log, log_batches, update_freq, per_variable, include)
        self._joined, self.forensics = False, None
        self.record_dir = self.log.log_dir

    def request(self):
        return self.observing(
            statistics=NAMES if self.log.points.per_variable else (),
            sample_freq=self.sample_freq,
            histogram_freq=self.log.histogram_freq,
            state_dirs=(self._asked,),
        )

    def join(self, model):
        """Follows `model` for another callback, which asks and drains for it."""
        keras.callbacks.Callback.set_model(self, model)
        self._gradwatch, self._joined = model.gradwatch, True

    def on_first_batch(self):
        """Opens an event file."""
        # Another run's directory is left alone.
        self.log.log_dir = self._gradwatch.keeper.directory(self._asked)
        self.record_dir = self.log.log_dir
        self.log.begin(self._gradwatch.step)
        if not self._joined:
            self.forensics = Forensics(self.log.log_dir, self._gradwatch, self.model)
        self.finish_at_exit()

    def finish(self):
        """Writes what is still in the ring, and closes the file."""
        super().finish()
        self._gradwatch.drain()
        self.log.heatmap(self._gradwatch.step - 1, last=True)
        self.log.close()

    def on_rows(self, rows, events):
        """Writes newly drained rows."""
        if not self._joined:
            super().on_rows(rows, events)
            self.forensics.add(rows, events)
        histograms = self._gradwatch.histograms() if self.log.histogram_freq else None
        epoch = self._gradwatch.recorder.epoch
        self.log.write(rows, events, histograms, epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Drains, and draws the heatmap after epochs 1, 2, 4, 8, ..."""
        super().on_epoch_end(epoch, logs)
        self.log.points.end_epoch()
        if np.log2(epoch + 1).is_integer():
            self.log.heatmap(self._gradwatch.step - 1)
        if not self._joined and self._gradwatch.recorder.exploded:
            report = self.report()
            self.forensics.report(report)
            self.show_report(report)

    def on_train_end(self, logs=None):
        """Drains, draws the heatmap, closes the file, and writes the report."""
        super().on_train_end(logs)
        if not self._joined:
            report = self.report()
            self.forensics.end(report)
            self.show_report(report)
        self.finish()

    def show_report(self, report):
        """Writes a `Report` to the Text page."""
        step, epoch = self._gradwatch.step - 1, self._gradwatch.recorder.epoch
        where = f"After step {step}, epoch {epoch}:"
        self.log.report(step, f"{where}\n\n{report.to_markdown()}")
