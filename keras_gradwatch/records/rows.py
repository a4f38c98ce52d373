"""The rows of the ring: how they are laid out, and what they say of a run of steps."""

import functools
from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.records.events import Event
from keras_gradwatch.statistics.names import NAMES

SCALARS = (
    "global_norm",  # before clipping
    "clipped_norm",  # after clipping
    "loss",  # the step's own; NaN where it cannot be seen
    "learning_rate",  # in effect in this step
    "outcome",  # APPLIED, SKIPPED, REVERTED or OVERFLOWED
    "clipped",  # 1 where a policy changed the gradients
    "held",  # fraction of the update that the trust region has cut off
    "loss_scale",  # by which the loss was multiplied; NaN where it was not
    "halted",  # 1 where no update is applied any more
    "nonfinite",  # 1 where a gradient, or the loss where it is known, is not finite
)
"""What is recorded of each application of an optimizer, besides the statistics."""

ADDED = (
    "trust_radius",  # fraction of a kernel that an update may change; NaN: any
    "rate_factor",  # of the learning rate after the step; 1: not cut
    "limit_global_norm",  # above which this update is skipped; NaN: not known
    "limit_loss",  # the same of the loss
)
"""What the host adds to them, for the whole step."""

# OVERFLOWED: an overflow of the loss scale, which made the optimizer skip the update.
APPLIED, SKIPPED, REVERTED, OVERFLOWED = 0, 1, 2, 3
HALTED, STOPPED = 1, 2

# The order in which the outcomes of several applications count for the step.
PRECEDENCE = (APPLIED, OVERFLOWED, REVERTED, SKIPPED)


@dataclass(frozen=True)
class Layout:
    """How a row of the ring is laid out: scalars of each application, statistics.

    Attributes:
        variables: The V names of the variables that are trained.
        statistics: The K names, of those in `statistics.NAMES`, that are recorded.
        applications: Number of applications of an optimizer that a row has room for.
        sizes: V numbers of elements.
        kernels: V flags, True where a variable has two or more axes.
    """

    variables: tuple
    statistics: tuple = NAMES
    applications: int = 1
    sizes: tuple = ()
    kernels: tuple = ()

    @functools.cached_property
    def arrays(self):
        """`sizes` and `kernels` as arrays [V]."""
        return np.asarray(self.sizes), np.asarray(self.kernels, bool)

    @property
    def width(self):
        """Number of float32 values in a row."""
        scalars = self.applications * len(SCALARS)
        return scalars + len(self.variables) * len(self.statistics)

    def unpack(self, steps, rows):
        """Rows of the ring as `Rows`.

        Args:
            steps: Integer array [T].
            rows: float32 array [T, width].
        """
        rows = np.asarray(rows, np.float32)
        cut = self.applications * len(SCALARS)
        each = rows[:, :cut].reshape(len(rows), self.applications, len(SCALARS))
        shape = (len(rows), len(self.variables), len(self.statistics))
        recorded = rows[:, cut:].reshape(shape)
        steps = np.asarray(steps, np.int64)
        return Rows(self, steps, each, recorded, _united(each))


def _united(each):
    """Combines the scalars [T, S, ...] of applications, to a dict of arrays [T]."""
    scalars = {name: each[:, 0, i].copy() for i, name in enumerate(SCALARS)}
    every = dict(zip(SCALARS, np.moveaxis(each, 2, 0), strict=True))
    if each.shape[1] > 1:
        there = ~np.isnan(every["outcome"])
        for name in ("global_norm", "clipped_norm"):
            # In float64: the squares of float32 norms may be out of its range.
            squares = np.where(there, every[name].astype("float64"), 0.0) ** 2
            total = np.sqrt(squares.sum(axis=1))
            scalars[name] = np.where(there.any(axis=1), total, np.nan).astype("float32")
        for name in ("clipped", "held", "halted", "nonfinite"):
            scalars[name] = np.nan_to_num(every[name]).max(axis=1)
        outcome = np.full(len(each), APPLIED, "float32")
        for value in PRECEDENCE:
            outcome[(every["outcome"] == value).any(axis=1)] = value
        scalars["outcome"] = outcome
    for name in ("outcome", "clipped", "held", "halted", "nonfinite"):
        scalars[name] = np.nan_to_num(scalars[name])
    count = len(each)
    for name in ADDED:
        scalars[name] = np.full(count, np.nan, "float32")
    scalars["rate_factor"] = np.ones(count, "float32")
    return scalars


@dataclass
class Trip:
    """One detector that tripped in one of the `Rows`.

    Attributes:
        row: Index of the row.
        detector: The `Detector`.
        variable: Index of the variable, or None for the step as a whole.
        value: The measured value.
        baseline: The value that it was compared with.
        action: What a response did besides what the row says, or None.
        words: The same in words.
        cause: `Event.cause`, or None.
        what: What tripped, in words; None: as the detector describes it.
        note: What else is known, in words, or None.
        application: Index of the application of an optimizer; None: the only one.
        network: What that application trains, in words, or None.
        followed: Whether a response that acts follows the detector.
    """

    row: int
    detector: object
    variable: int | None
    value: float
    baseline: float
    action: str | None = None
    words: str = ""
    cause: str | None = None
    what: str | None = None
    note: str | None = None
    application: int | None = None
    network: str | None = None
    followed: bool = True


@dataclass(frozen=True)
class Rows:
    """T steps as they were recorded.

    Attributes:
        layout: The `Layout` of the rows.
        steps: int64 array [T].
        applications: float32 array [T, S, 10], columns as in `SCALARS`; NaN where a
            step has fewer applications.
        recorded: float32 array [T, V, K], the statistics that were recorded.
        scalars: Dict of the names in `SCALARS` and `ADDED` to float32 arrays [T].
        trips: List of `Trip`.
        added: Dict of further statistics, which the host has measured.
    """

    layout: Layout
    steps: np.ndarray
    applications: np.ndarray
    recorded: np.ndarray
    scalars: dict
    trips: list = field(default_factory=list)
    added: dict = field(default_factory=dict)

    def __len__(self):
        return len(self.steps)

    def statistic(self, name):
        """One statistic of all variables, float32 array [T, V]; NaN: not measured."""
        if name in self.layout.statistics:
            return self.recorded[:, :, self.layout.statistics.index(name)]
        if name in self.added:
            return self.added[name]
        return np.full((len(self), len(self.layout.variables)), np.nan, "float32")

    @functools.cached_property
    def compete(self):
        """In which steps several optimizers have a loss each, bool array [T]."""
        if self.layout.applications == 1:
            return np.zeros(len(self), bool)
        losses = self.applications[:, :, SCALARS.index("loss")]
        known = np.isfinite(losses)
        highest = np.where(known, losses, -np.inf).max(axis=1)
        lowest = np.where(known, losses, np.inf).min(axis=1)
        return highest > lowest

    @functools.cached_property
    def judged_loss(self):
        """The loss, float32 array [T]; NaN where there are several."""
        return np.where(self.compete, np.float32("nan"), self.scalars["loss"])

    def add(self, name, row, places, values):
        """Notes what the host has measured of some variables in one step."""
        if name not in self.layout.statistics:
            self.added.setdefault(name, self.statistic(name))
        column = self.statistic(name)[row]
        unknown = np.isnan(column[places])
        column[places] = np.where(unknown, values, column[places])

    def events(self, detectors=None):
        """The `Event`s of these steps, in order.

        Args:
            detectors: The detectors whose events are wanted; None: of all.
        """
        return [
            self._event(trip)
            for trip in self.trips
            if detectors is None or trip.detector in detectors
        ]

    def _event(self, trip):
        index, t = trip.variable, trip.row
        variable = None if index is None else self.layout.variables[index]
        action = self._action(t, trip.followed)
        done = self._done(t, action, trip.followed)
        if trip.action is not None:
            action, done = trip.action, trip.words
        what = trip.what
        if what is None:
            what = trip.detector.describe(variable, trip.value, trip.baseline)
        if trip.network is not None:
            what = f"{trip.network}: {what}"
        if trip.note is not None:
            what += f", {trip.note}"
        return Event(
            int(self.steps[t]),
            trip.detector.kind,
            variable,
            trip.value,
            trip.baseline,
            action,
            f"step {self.steps[t]}: {what}; {done}",
            trip.cause,
        )

    def _action(self, t, followed):
        outcome = int(self.scalars["outcome"][t])
        if self.scalars["halted"][t] == STOPPED:
            return "stopped"
        if outcome in (SKIPPED, OVERFLOWED):
            return "skipped"
        if outcome == REVERTED:
            return "reverted"
        if followed and self.scalars["rate_factor"][t] < 1:
            return "rate reduced"
        if self.scalars["clipped"][t] or (followed and self.scalars["held"][t]):
            return "clipped"
        return "observed"

    def _done(self, t, action, followed):
        rate = float(self.scalars["learning_rate"][t])
        factor = float(self.scalars["rate_factor"][t])
        held = followed and self.scalars["held"][t] > 0
        radius = float(self.scalars["trust_radius"][t])
        clipped = "the gradients were clipped to a norm of "
        clipped += f"{self.scalars['clipped_norm'][t]:.3g}"
        if held:
            clipped = f"the update was limited to {radius:.2%} of the weights' norm"
        made = {APPLIED: "applied", REVERTED: "reverted"}
        made = made.get(int(self.scalars["outcome"][t]), "skipped")
        parts = {
            "skipped": ["the update was skipped"],
            "stopped": [f"the update was {made}; training stopped"],
            "reverted": ["the weights were restored"],
            "clipped": [clipped],
            "rate reduced": [clipped if held else "the update was applied"],
            "observed": ["reported only; nothing was changed"],
        }[action]
        if followed and factor < 1:
            parts.append(f"learning rate {rate:.3g} -> {rate * factor:.3g}")
        return ", ".join(parts)
