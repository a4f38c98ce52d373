"""The loggers of one callback."""

import contextlib
import functools

from keras_gradwatch.loggers.base import Logger, NoRunError
from keras_gradwatch.tensorboard.norms import NormLog
from keras_gradwatch.tensors.processes import is_chief


class Loggers:
    """Passes points and events of a run to loggers; at its end report and heatmap.

    A logger that raises an exception, such as one that has lost its server, is disabled
    until the next `fit`; training continues.
    """

    def __init__(self, owner, log, points):
        self._loggers = _checked(owner, log)
        self.points = points
        self.forget()

    def forget(self):
        """Drops what is known of earlier runs."""
        self._norms, self.open = NormLog(), False
        self._active, self._say = [], None

    def __len__(self):
        return len(self._loggers)

    def begin(self, first_step, say):
        """Begins a `fit`; raises NoRunError if a tracker has no run to log to."""
        if first_step == 0:
            self._norms = NormLog()
        self.open = is_chief()
        if self.open:
            self._active, self._say = list(self._loggers), say
            try:
                self._call("on_begin", first_step)
            except BaseException:  # there is no run, or Ctrl-C
                self._close()
                raise
            self.points.begin(first_step, functools.partial(self._call, "on_log"))

    def _call(self, method, *arguments):
        for logger in list(self._active):
            try:
                getattr(logger, method)(*arguments)
            except NoRunError:
                raise
            except Exception as error:
                self._active.remove(logger)
                with contextlib.suppress(Exception):
                    logger.on_close()
                name = type(logger).__name__
                self._say(
                    f"{name}.{method} failed, so {name} is disabled until the next "
                    f"`fit`: {type(error).__name__}: {error}"
                )

    def write(self, rows, events):
        """Logs newly drained `Rows` and their events."""
        if not self.open:
            return
        self._norms.add(rows)
        for event in events:
            self._call("on_event", event)
        self.points.add(rows, events)

    def end(self, report):
        """Ends a `fit` with its `Report`, once."""
        if not self.open:
            return
        try:
            self.points.end()
            self._call("on_end", report, self._norms.picture())
        finally:
            self._close()

    def _close(self):
        self.open = False
        self._call("on_close")
        self._active, self._say = [], None


def _checked(owner, log):
    found = log if isinstance(log, list | tuple) else [] if log is None else [log]
    if not all(isinstance(logger, Logger) for logger in found):
        raise ValueError(
            f"{type(owner).__name__}: `log` must be a `loggers.Logger`, a list of "
            f"them, or None. Received: log={log!r}"
        )
    return list(found)
