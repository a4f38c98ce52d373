"""Base of the loggers."""

import importlib


class NoRunError(ValueError):
    """Raised at the start of `fit` if there is no run, and none is to be started."""


class Logger:
    """Receives what a callback logs; base of every logger, and of your own.

    Each method may be overridden; those of this class do nothing. The methods are
    called between training steps, so slow operations delay training. If one raises an
    exception, a line is printed, and the logger is disabled until the next `fit`;
    training continues. Of several processes, only one logs.

    Example:

    ```python
    class Print(keras_gradwatch.loggers.Logger):
        def on_log(self, step, values):
            print(step, values.get("gradwatch/grad_norm"))


    watch = callbacks.GradWatch(log=Print(), verbose=0)
    model.fit(x, y, callbacks=[watch])
    ```
    """

    def on_begin(self, step):
        """Called before the first step of each `fit`.

        Args:
            step: Number of that step, counted over all `fit` calls of a model.
        """

    def on_log(self, step, values):
        """Called with the scalars of one step.

        Args:
            step: Number of the step, ascending within a `fit`.
            values: Dict from TensorBoard's tag, such as `"gradwatch/grad_norm"`, to a
                finite float.
        """

    def on_event(self, event):
        """Called with each `Event`, which may be before the scalars of its step."""

    def on_end(self, report, heatmap):
        """Called at the end of each `fit`.

        Args:
            report: `Report`, a `str` with attributes; see `to_markdown`, `to_dict`.
            heatmap: Picture of all gradient norms so far, variable × step, uint8
                [H, 700, 3]; None where nothing was measured.
        """

    def on_close(self):
        """Called last in each `fit`, even after an exception or Ctrl-C.

        It releases what the logger holds, such as a run that it has started.
        """


def client(name, owner):
    """Imports the package of a tracker; ImportError says how to install it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{type(owner).__name__} needs {name}: `pip install {name}`."
        ) from error


def settings(owner, name, run, start):
    """Checks and returns `start`, the arguments with which a tracker starts a run.

    Raises ValueError if it is no dict of arguments, or if `run` is given, too.
    """
    owner = type(owner).__name__
    named = isinstance(start, dict) and all(isinstance(key, str) for key in start)
    if start is not None and not named:
        raise ValueError(
            f"{owner}: `start` must be a dict of keyword arguments, or None. Received: "
            f"start={start!r}"
        )
    if run is not None and start is not None:
        raise ValueError(
            f"{owner}: `{name}` and `start` are mutually exclusive: log to an existing "
            f"run, or start one. Received: {name}={run!r} and start={start!r}"
        )
    return start
