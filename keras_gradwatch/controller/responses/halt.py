"""Stopping all further updates."""

from keras_gradwatch.controller.responses.base import Response


class Halt(Response):
    """Stops all further updates once its detectors have tripped in `limit` steps.

    With `in_a_row`, in consecutive steps: then the host decides at its next reading,
    otherwise the device in the step itself.
    """

    def __init__(self, detectors, limit, in_a_row=False):
        super().__init__(detectors)
        self.limit, self.in_a_row = limit, in_a_row
        self.hits = 0

    def begin(self, controller, memory):
        self.hits = 0

    def react(self, moment, memory):
        if not moment.followed(self):
            if self.in_a_row and moment.complete:
                self.hits = 0
            return
        self.hits += 1
        if self.hits >= self.limit:
            moment.controller.halt(moment)
