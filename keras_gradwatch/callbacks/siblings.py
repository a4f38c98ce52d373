"""The callbacks that one `fit` was given."""

import inspect

import keras


def siblings():
    """The callbacks of the `fit` that is calling one of them, a list.

    Keras does not tell a callback about the others; its `CallbackList` is among the
    callers. Empty where a callback is called by something else.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return list(caller.callbacks)
        frame = frame.f_back
    return []


def trial():
    """Name of the trial in which keras-tuner runs this `fit`, or None."""
    for callback in siblings():
        if type(callback).__name__ == "TunerCallback":
            name = getattr(getattr(callback, "trial", None), "trial_id", None)
            return None if name is None else str(name)
    return None
