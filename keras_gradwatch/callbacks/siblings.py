"""The callbacks that one `fit` was given."""

import inspect

import keras


def siblings():
    """The callbacks of the `fit` that is calling one of them, a list.

    Empty where a callback is called by something else.
    """
    found = callback_list()
    return [] if found is None else list(found.callbacks)


def callback_list():
    """The `CallbackList` of the `fit` that is calling one of its callbacks, or None.

    Keras does not tell a callback about the others; its `CallbackList` is among the
    callers.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            return caller
        frame = frame.f_back
    return None


def trial():
    """Name of the trial in which keras-tuner runs this `fit`, or None."""
    for callback in siblings():
        if type(callback).__name__ == "TunerCallback":
            name = getattr(getattr(callback, "trial", None), "trial_id", None)
            return None if name is None else str(name)
    return None
