"""The base class of responses, which act when a detector trips."""

from dataclasses import dataclass


@dataclass
class Moment:
    """One recorded step, as responses see it, between two steps.

    Attributes:
        controller: The `Controller`, which carries out the decisions.
        rows: `Rows` of this reading.
        row: Index of the step in `rows`.
        step: The step, from 0.
        trips: List of `Trip`, the detectors that tripped in it.
        finite: Whether its gradients, and its loss where known, are finite.
        complete: False for a part of an accumulation window.
        skipped: Whether its update was skipped.
        loss: Its loss; NaN if unknown.
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

    A response is created for one `fit`. State that must survive the `fit`, or the
    process, is in `memory`, a dict of plain numbers.

    Args:
        detectors: The detectors that it follows.

    Attributes:
        acts: Whether it may change anything; otherwise it only reports.
        gates: Whether the step itself skips an update outside its detectors' limits.
        may_cut: Whether it may cut a learning rate.
        lends: Whether a cut is undone after a number of healthy steps; see `loan`.
    """

    acts = True
    gates = False
    may_cut = False
    lends = True

    def __init__(self, detectors):
        self.detectors = tuple(detectors)

    def initial_memory(self):
        """The state before the first step, a dict of numbers and lists."""
        return {}

    def begin(self, controller, memory):
        """Called before the first batch of a `fit`."""

    def claims(self, moment, memory):
        """Receives a step before the detectors do.

        Returns:
            True to exclude the step from detection.
        """
        del moment, memory
        return False

    def react(self, moment, memory):
        """Called for each recorded step, in order."""

    def restart(self, memory):
        """Called after weights were restored: earlier losses no longer apply."""

    def after(self, rows, controller, memory):
        """Called after a reading, between two steps."""

    def end_epoch(self, controller, memory):
        """Called at the end of an epoch, which a callback may have ended early.

        Weights that are only tried are put back: they are evaluated and saved next.
        """
