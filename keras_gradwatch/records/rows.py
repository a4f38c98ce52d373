"""Host side: rows drained from the ring, and the events they tell of."""

from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.train_step.statistics import NAMES

SCALARS = (
    "global_norm",  # before clipping
    "clipped_norm",  # after clipping
    "loss",  # the step's own; NaN where it cannot be seen
    "learning_rate",  # in effect in this step
    "outcome",  # APPLIED, SKIPPED, REVERTED or OVERFLOWED
    "clipped",  # 1 where a policy changed the gradients
    "held",  # 1 where the update was cut down to the trust region
    "trust_radius",  # share of a kernel that an update may change; NaN: any
    "loss_scale",  # by which the loss was multiplied; NaN where it was not
    "rate_factor",  # what the rate was multiplied by after this step; 1: not cut
    "halted",  # 1 where training had been halted before this step, 2 by it
)
# OVERFLOWED: a loss scale's overflow, that its optimizer left out by itself.
APPLIED, SKIPPED, REVERTED, OVERFLOWED = 0, 1, 2, 3
HALTED, STOPPED = 1, 2

ACTIONS = (
    "observed",
    "clipped",
    "skipped",
    "reverted",
    "rate reduced",
    "rewound",
    "stopped",
)
"""What can have been done about an event, `Event.action`."""


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


@dataclass(frozen=True)
class Layout:
    """How a row of the ring is laid out: scalars, statistics, verdicts.

    Attributes:
        variables: The V names of the variables with a gradient.
        detectors: The D detectors.
    """

    variables: tuple[str, ...]
    detectors: tuple

    @property
    def width(self):
        """Number of float32 values in a row."""
        return len(SCALARS) + len(self.variables) * len(NAMES) + len(self.detectors) * 4

    def unpack(self, steps, rows):
        """Rows of the ring as `Rows`.

        Args:
            steps: Integer array [T].
            rows: float32 array [T, width].
        """
        rows = np.asarray(rows, np.float32)
        cut = len(SCALARS)
        end = cut + len(self.variables) * len(NAMES)
        return Rows(
            self,
            np.asarray(steps, np.int64),
            {name: rows[:, i] for i, name in enumerate(SCALARS)},
            rows[:, cut:end].reshape(len(rows), len(self.variables), len(NAMES)),
            rows[:, end:].reshape(len(rows), len(self.detectors), 4),
        )


@dataclass(frozen=True)
class Rows:
    """T steps as they were recorded.

    Attributes:
        layout: The `Layout` of the rows.
        steps: int64 array [T].
        scalars: Dict of the names in `SCALARS` to float32 arrays [T].
        statistics: float32 array [T, V, 8], columns as in `statistics.NAMES`.
        verdicts: float32 array [T, D, 4]: tripped, variable, value, baseline.
        done: Dict of a detector's index to `(action, words)`: what the host is about to
            do about it, where that is more than what the step itself did.
    """

    layout: Layout
    steps: np.ndarray
    scalars: dict
    statistics: np.ndarray
    verdicts: np.ndarray
    done: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.steps)

    def statistic(self, name):
        """One statistic of all variables, float32 array [T, V]."""
        return self.statistics[:, :, NAMES.index(name)]

    def events(self, detectors=None):
        """The `Event`s of these steps, in order.

        Args:
            detectors: The detectors whose events are wanted; None: of all.
        """
        found = []
        for t, d in zip(*np.nonzero(self.verdicts[:, :, 0] > 0), strict=True):
            wanted = detectors is None or self.layout.detectors[d] in detectors
            if wanted and self.scalars["halted"][t] != HALTED:
                found.append(self._event(t, d))
        return found

    def _event(self, t, d):
        _, index, value, baseline = (float(x) for x in self.verdicts[t, d])
        variable = self.layout.variables[int(index)] if index >= 0 else None
        detector = self.layout.detectors[d]
        action = self._action(t)
        done = self._done(t, action)
        if d in self.done:
            action, done = self.done[d]
        what = detector.describe(variable, value, baseline)
        message = f"step {self.steps[t]}: {what}; {done}"
        return Event(
            int(self.steps[t]),
            detector.kind,
            variable,
            value,
            baseline,
            action,
            message,
        )

    def _action(self, t):
        outcome = int(self.scalars["outcome"][t])
        if self.scalars["halted"][t] == STOPPED:
            return "stopped"
        if outcome in (SKIPPED, OVERFLOWED):
            return "skipped"
        if outcome == REVERTED:
            return "reverted"
        if self.scalars["rate_factor"][t] < 1:
            return "rate reduced"
        if self.scalars["clipped"][t] or self.scalars["held"][t]:
            return "clipped"
        return "observed"

    def _done(self, t, action):
        rate = float(self.scalars["learning_rate"][t])
        factor = float(self.scalars["rate_factor"][t])
        held = self.scalars["held"][t] > 0
        radius = float(self.scalars["trust_radius"][t])
        clipped = "the gradients were clipped to norm "
        clipped += f"{self.scalars['clipped_norm'][t]:.3g}"
        if held:
            clipped = f"updates are held to {radius:.2g} times the weights"
        parts = {
            "skipped": ["the update was skipped"],
            "stopped": ["the update was left out, and training is stopped"],
            "reverted": ["the weights were put back"],
            "clipped": [clipped],
            "rate reduced": [clipped] if held else [],
            "observed": ["observed, nothing was changed"],
        }[action]
        if factor < 1:
            parts.append(f"learning rate {rate:.3g} -> {rate * factor:.3g}")
        return ", ".join(parts)
