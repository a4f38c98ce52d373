"""The loggers of one callback."""

from keras_gradwatch.loggers.base import Logger
from keras_gradwatch.tensorboard.norms import NormLog
from keras_gradwatch.tensors.processes import is_chief


class Loggers:
    """Hands points and events of a run to loggers; at its end report and heatmap.

    Args:
        owner: The object that the user has made, for messages.
        log: `Logger`, a list of them, or None.
        points: `Points`.

    Raises:
        ValueError: If `log` is something else.
    """

    def __init__(self, owner, log, points):
        self._loggers = _checked(owner, log)
        self.points = points
        self.forget()

    def forget(self):
        """Drops what is known of the runs so far."""
        self._norms, self._open = NormLog(), False

    def __len__(self):
        return len(self._loggers)

    def begin(self, first_step):
        """Begins a `fit` whose first step is `first_step`."""
        if first_step == 0:
            self._norms = NormLog()
        self._open = is_chief()
        if self._open:
            for logger in self._loggers:
                logger.on_begin(first_step)
            self.points.begin(first_step, self._log)

    def _log(self, step, values):
        for logger in self._loggers:
            logger.on_log(step, values)

    def write(self, rows, events):
        """Takes newly drained `Rows` and their events."""
        if not self._open:
            return
        self._norms.add(rows)
        for event in events:
            for logger in self._loggers:
                logger.on_event(event)
        self.points.add(rows, events)

    def end(self, report):
        """Ends a `fit`, once.

        Args:
            report: Its `Report`.
        """
        if not self._open:
            return
        self._open = False
        self.points.end()
        heatmap = self._norms.picture()
        for logger in self._loggers:
            logger.on_end(report, heatmap)


def _checked(owner, log):
    found = log if isinstance(log, list | tuple) else [] if log is None else [log]
    if not all(isinstance(logger, Logger) for logger in found):
        raise ValueError(
            f"{type(owner).__name__}: `log` must be a `loggers.Logger`, a list of "
            f"them, or None. Received: log={log!r}"
        )
    return list(found)
