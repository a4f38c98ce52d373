"""Base of the loggers."""

import importlib


class Logger:
    """Receives what a callback logs; base of every logger, and of your own.

    Each method may be overridden; those of this class do nothing. The methods are
    called between training steps, so slow operations delay training. Of several
    processes, only one logs.

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


def client(name, owner):
    """The package of a tracker.

    Raises:
        ImportError: If it is not installed; the message names the extra.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(
            f"{type(owner).__name__} needs {name}: "
            f"`pip install keras-gradwatch[{name}]`."
        ) from error


def settings(owner, name, value):
    """Checks an argument that holds the keyword arguments of a function, or None.

    Raises:
        ValueError: If `value` is neither a dict with names as keys nor None.
    """
    named = isinstance(value, dict) and all(isinstance(key, str) for key in value)
    if value is not None and not named:
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be a dict of keyword arguments, or "
            f"None. Received: {name}={value!r}"
        )
    return value
