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


# What the message of a loss that has risen says where the data explain it.
CHANGED = "the data or the loss function must have changed"
ORDERED = "the data come in a fixed order"

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
    """

    step: int
    kind: str
    variable: str | None
    value: float
    baseline: float
    action: str
    message: str


def tripped(events):
    """The events in a list in which a detector tripped."""
    return [event for event in events if event.action != RESTORED]
