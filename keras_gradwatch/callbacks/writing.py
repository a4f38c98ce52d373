"""The base of the callbacks that write a run to a directory."""

import numpy as np

from keras_gradwatch.callbacks.logging import Logging
from keras_gradwatch.callbacks.showing import Showing
from keras_gradwatch.methods import frequency
from keras_gradwatch.reports.forensics import Forensics
from keras_gradwatch.tensorboard.log import GradientLog
from keras_gradwatch.tensorboard.points import Points


class Writing(Logging, Showing):
    """Base of the callbacks that write TensorBoard logs, incidents and the report.

    Attributes:
        board: `GradientLog`; None: nothing is written to TensorBoard.
        state_dir: Requested directory of incidents, report and record, or None. If it
            contains another run, a directory in it is used.
    """

    board: GradientLog | None = None
    state_dir: str | None = None
    # The directory of the event files that was asked for.
    _log_dir: str | None = None
    save_batch = 0

    def set_board(self, log_dir, update_freq, per_variable, histogram_freq, include):
        """Checks the arguments of a constructor that concern TensorBoard."""
        freq = frequency(self, update_freq)
        points = Points(freq, per_variable, include)
        self.board = GradientLog(log_dir, points, histogram_freq, self)
        self._log_dir = self.state_dir = self.record_dir = self.board.log_dir
        # The newest histogram is kept on the device until it is drained.
        self.update_freq = min(self.update_freq, freq or 50, histogram_freq or 50)

    def on_first_batch(self):
        """Opens the files of this `fit`."""
        super().on_first_batch()
        keeper = self._gradwatch.keeper
        if self.board is not None:
            self.board.log_dir = keeper.directory(self._log_dir)
            self.board.begin(self._gradwatch.step)
            self.finish_at_exit()
        if self.state_dir is not None:
            directory = keeper.directory(self.state_dir)
            self.record_dir = directory if self.board is None else self.board.log_dir
            self.forensics = Forensics(
                directory,
                self._gradwatch,
                self.model,
                save_batch=self.save_batch > 0,
                record_dir=self.record_dir,
            )

    def on_rows(self, rows, events):
        """Writes newly drained rows."""
        super().on_rows(rows, events)
        if self.board is not None:
            asked = self.board.histogram_freq
            histograms = self._gradwatch.histograms() if asked else None
            epoch = self._gradwatch.recorder.epoch
            self.board.write(rows, events, histograms, epoch)
        if self.forensics is not None:
            self.forensics.add(rows, events)
            bad = self.summary.first_bad
            if bad.get("step") in self.forensics.forward:
                bad["forward"] = self.forensics.forward[bad["step"]]
            if self._gradwatch.halted:  # `fit` may end by an exception
                self.forensics.report(self.report())

    def on_epoch_end(self, epoch, logs=None):
        """Drains, and draws the heatmap after epochs 1, 2, 4, 8, ..."""
        super().on_epoch_end(epoch, logs)
        if self.board is not None:
            self.board.points.end_epoch()
            if np.log2(epoch + 1).is_integer():
                self.board.heatmap(self._gradwatch.step - 1)
        explosions = self._gradwatch.recorder.epoch_sums.explosions
        if self.forensics is not None and explosions:
            self._write_report(self.forensics.report)

    def on_train_end(self, logs=None):
        """Writes the report, draws the heatmap, and closes the files."""
        if self.forensics is not None:
            self._write_report(self.forensics.end)
        super().on_train_end(logs)

    def finish(self):
        """Writes what is still in the ring, and closes the event file."""
        super().finish()
        if self.board is not None:
            self._gradwatch.drain()
            self.board.heatmap(self._gradwatch.step - 1, last=True)
            self.board.close()

    def _write_report(self, write):
        report = self.report()
        write(report)
        if self.board is not None:
            step, epoch = self._gradwatch.step - 1, self._gradwatch.recorder.epoch
            where = f"After step {step}, epoch {epoch}:"
            self.board.report(step, f"{where}\n\n{report.to_markdown()}")
