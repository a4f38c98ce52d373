"""The events that are reported when a detector trips."""

from dataclasses import dataclass

ACTIONS = (
    "observed",
    "clipped",
    "skipped",
    "reverted",
    "rate reduced",
    "rate restored",
    "rewound",
    "stopped",
)
"""The possible values of `Event.action`: what was done about an event."""


# Causes that a test of earlier weights has shown: the data or the loss function have
# changed, or the data come in a fixed order and are hardest at its end.
NEW_DATA, DATA_ORDER = "new data", "data order"

# The action of a cut that is undone when no detector has tripped for a while.
RESTORED = "rate restored"


@dataclass(frozen=True)
class Event:
    """Records that a detector tripped in a step, or that a rate cut was undone.

    Attributes:
        step: The step, from 0, counted over all `fit` calls.
        kind: What tripped: `Detector.kind`.
        variable: Path of the variable in which the detector found the problem, or None
            for the step as a whole.
        value: The measured value.
        baseline: The value that it was compared with.
        action: What was done, one of `ACTIONS`.
        message: Everything in one line.
        cause: Why the loss has risen, where a test of earlier weights has shown it:
            `"new data"` or `"data order"`; None where it is unknown.
    """

    step: int
    kind: str
    variable: str | None
    value: float
    baseline: float
    action: str
    message: str
    cause: str | None = None


def tripped(events):
    """The events in a list in which a detector tripped."""
    return [event for event in events if event.action != RESTORED]
