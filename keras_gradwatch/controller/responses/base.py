"""The base class of responses, which act when a detector trips."""

from dataclasses import dataclass


@dataclass
class Moment:
    """One recorded step, as responses see it between two steps.

    Attributes:
        controller: The `Controller`, which carries out the decisions.
        rows: `Rows` of this reading.
        row: Index of the step in `rows`.
        step: The step, from 0.
        trips: List of the `Trip`s of the step.
        finite: Whether its gradients, and its loss where known, are finite.
        complete: False for a part of an accumulation window.
        loss: Its loss; NaN if unknown.
    """

    controller: object
    rows: object
    row: int
    step: int
    trips: list
    finite: bool
    complete: bool
    loss: float

    def followed(self, response):
        """Returns the trips of the detectors that a response follows."""
        return [trip for trip in self.trips if trip.detector in response.detectors]


class Response:
    """Base class of responses.

    A response is created for one `fit`. State that must survive the `fit`, or the
    process, is kept in `memory`, a dict of numbers and lists.

    Attributes:
        acts: Whether it may change anything; otherwise it only reports.
        gates: Whether the step itself skips updates outside its detectors' limits.
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
        """Returns the state before the first step, a dict of numbers and lists."""
        return {}

    def begin(self, controller, memory):
        """Called before the first batch of a `fit`."""

    def claims(self, moment, memory):
        """Receives a step before the detectors do; True hides it from them."""
        return False

    def react(self, moment, memory):
        """Called in order for each recorded step that no response claims."""

    def restart(self, memory):
        """Called after weights were restored: earlier losses no longer apply."""

    def after(self, rows, controller, memory):
        """Called after a reading, between two steps."""

    def end_epoch(self, controller, memory):
        """Called at the end of an epoch, which a callback may have ended early.

        A running trial or probe is ended, and the weights from before it are restored,
        because Keras evaluates and saves the weights next.
        """
