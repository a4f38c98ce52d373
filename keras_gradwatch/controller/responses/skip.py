"""Skipping updates."""

from keras_gradwatch.controller.responses.base import Response


class Skip(Response):
    """Skips the update of a step in which one of its detectors trips.

    The gate in the step does so. A limit on the update itself restores the weights.
    """

    gates = True
