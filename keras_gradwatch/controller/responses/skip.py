"""Leaving updates out."""

from keras_gradwatch.controller.responses.base import Response


class Skip(Response):
    """Leaves out the update in which one of its detectors trips.

    The gate does it, in the step itself, by the limits of the detectors. Where a limit
    is about the update that was made, the weights are put back.
    """

    gates = True
