"""Applying no update any more."""

from keras_gradwatch.controller.responses.base import Response


class Halt(Response):
    """Applies no update any more once its detectors have tripped in `limit` steps.

    Args:
        detectors: The detectors that it follows.
        limit: Number of tripped steps in one `fit`.
    """

    def __init__(self, detectors, limit):
        super().__init__(detectors)
        self.limit = limit
        self.hits = 0

    def begin(self, controller, memory):
        self.hits = 0

    def react(self, moment, memory):
        if moment.followed(self):
            self.hits += 1
            if self.hits >= self.limit:
                moment.controller.halt(moment)
