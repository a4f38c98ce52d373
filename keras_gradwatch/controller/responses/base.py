"""What a response is: something that is done when a detector trips."""

from dataclasses import dataclass


@dataclass
class Moment:
    """One recorded step, as responses see it, between two steps.

    Attributes:
        controller: The `Controller`, which carries out what is decided.
        rows: `Rows` of this reading.
        row: Index of the step in `rows`.
        step: The step, from 0.
        trips: List of `Trip`, the detectors that tripped in it.
        finite: Whether its gradients, and its loss where known, are finite.
        complete: False for a part of an accumulation window.
        skipped: Whether its update was left out.
        loss: Its loss, NaN where it is not known.
    """

    controller: object
    rows: object
    row: int
    step: int
    trips: list
    finite: bool
    complete: bool
    skipped: bool
    loss: float

    def followed(self, response):
        """The trips of the detectors that a response follows."""
        return [trip for trip in self.trips if trip.detector in response.detectors]


class Response:
    """Base of all responses.

    A response is made for one `fit`. What it has to remember over the end of a
    `fit`, or of the process, it keeps in `memory`, a dict of plain numbers.

    Args:
        detectors: The detectors that it follows.

    Attributes:
        acts: Whether it may change anything; else it says what it would have done.
        gates: Whether an update outside of its detectors' limits is left out, in the
            step itself.
        may_cut: Whether it may cut a learning rate.
        lends: Whether a cut is taken back once the run is quiet; see `loan`.
    """

    acts = True
    gates = False
    may_cut = False
    lends = True

    def __init__(self, detectors):
        self.detectors = tuple(detectors)

    def initial_memory(self):
        """What it remembers before the first step, a dict of numbers and lists."""
        return {}

    def begin(self, controller, memory):
        """Called before the first batch of a `fit`."""

    def claims(self, moment, memory):
        """Takes a step before the detectors see it; True if it is not to be judged."""
        del moment, memory
        return False

    def react(self, moment, memory):
        """Called for each recorded step, in order, with what tripped in it."""

    def restart(self, memory):
        """Called when weights were put back: losses so far are those of others."""

    def after(self, rows, controller, memory):
        """Called after a reading, between two steps."""

    def end_epoch(self, controller, memory):
        """Called at the end of an epoch, which a callback may have ended early.

        Weights that are only tried are put back: they are evaluated and saved next.
        """
