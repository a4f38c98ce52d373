"""Skipping updates."""

from keras_gradwatch.controller.responses.base import Response


class Skip(Response):
    """Skips the update of a step that is outside the limits of one of its detectors.

    The gate in the compiled step does this. A step that trips a detector without being
    outside its limits is only reported. If a limit on the update itself is exceeded,
    the weights are restored.
    """

    gates = True
