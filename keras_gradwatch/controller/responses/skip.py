"""Skipping updates."""

from keras_gradwatch.controller.responses.base import Response


class Skip(Response):
    """Skips the update of a step in which one of its detectors trips.

    The gate compares the step with the limits of the detectors, within the step. If a
    limit concerns the update itself, the weights are restored.
    """

    gates = True
