"""The base of the callbacks that pass what they record to loggers."""

import atexit
import contextlib
import weakref

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.loggers.group import Loggers
from keras_gradwatch.methods import flag, frequency
from keras_gradwatch.reports.report import explain
from keras_gradwatch.tensorboard.points import Points

# Callbacks whose logs have begun and have not ended; Keras does not report that `fit`
# was interrupted.
_unfinished: weakref.WeakSet = weakref.WeakSet()


def _finish_all():
    with contextlib.ExitStack() as stack:  # each of them, whichever fails
        for callback in list(_unfinished):
            stack.callback(callback.finish)


class Logging(WatchingCallback):
    """Base of the callbacks that take `log` and `log_batches`."""

    _loggers: Loggers | None = None

    def set_log(self, log, log_batches, update_freq, per_variable=False, include=None):
        """Checks and stores the arguments of a constructor."""
        self.log_batches = flag(self, "log_batches", log_batches)
        freq = frequency(self, update_freq)
        loggers = Loggers(self, log, Points(freq, per_variable, include))
        if len(loggers):
            self._loggers = loggers
            self.update_freq = min(self.update_freq, freq or 50)

    def forget(self):
        """Drops what is known of earlier runs."""
        super().forget()
        if self._loggers is not None:
            self._loggers.forget()

    def set_model(self, model):
        """Watches `model`, and passes what is recorded to the loggers."""
        unfinished = list(_unfinished)  # the model is about to drop them
        super().set_model(model)
        for callback in unfinished:
            callback.finish_interrupted(model)
        if self._loggers is not None:
            self._gradwatch.recorder.listeners.append(self._loggers.write)

    def on_train_batch_begin(self, batch, logs=None):
        """Begins the first step of a `fit`."""
        begins = not self._begun
        super().on_train_batch_begin(batch, logs)
        if begins and self._loggers is not None:
            say = self._gradwatch.recorder.say_once
            self._loggers.begin(self._gradwatch.step, say)
            self.finish_at_exit()

    def on_epoch_end(self, epoch, logs=None):
        """Drains, and adds to the epoch's logs."""
        super().on_epoch_end(epoch, logs)
        if self._loggers is not None:
            self._loggers.points.end_epoch()

    def on_train_end(self, logs=None):
        """Drains, and ends the logs."""
        super().on_train_end(logs)
        self.finish()

    def finish(self):
        """Passes the last steps, the report and the heatmap to the loggers."""
        _unfinished.discard(self)
        if self._loggers is not None and self._loggers.open:
            self._gradwatch.drain()
            self._loggers.end(explain(self.summary, self._gradwatch.halted))

    def finish_interrupted(self, model):
        """Ends the logs of an interrupted `fit` of `model`."""
        if self._gradwatch.model is model:
            with contextlib.suppress(OSError):  # a full disk
                self.finish()

    def finish_at_exit(self):
        """Registers the logs to be closed at exit, in case `fit` does not end."""
        _unfinished.add(self)
        # The newest function is called first: before trackers end their runs.
        atexit.unregister(_finish_all)
        atexit.register(_finish_all)
