"""What is reported when a detector trips."""

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
"""What can have been done about an event, `Event.action`."""


# What is done when nothing has tripped for a while.
RESTORED = "rate restored"


@dataclass(frozen=True)
class Event:
    """One detector that tripped in one step.

    Attributes:
        step: The step, from 0, counted over all `fit` calls.
        kind: What tripped: `Detector.kind`.
        variable: Path of the variable that tripped, or None for the step as a whole.
        value: What was measured.
        baseline: What it was compared with.
        action: What was done, one of `ACTIONS`.
        message: All of it in one line for a person.
    """

    step: int
    kind: str
    variable: str | None
    value: float
    baseline: float
    action: str
    message: str


def tripped(events):
    """Those of a list of events in which something tripped."""
    return [event for event in events if event.action != RESTORED]
