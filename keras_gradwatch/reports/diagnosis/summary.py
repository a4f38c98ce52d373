"""The summary of a run for its diagnosis: plain data of bounded size."""

import dataclasses
import math
import statistics
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.records.events import tripped
from keras_gradwatch.records.rows import APPLIED

# Number of losses whose median is taken at the beginning and at the end of a run.
WINDOW = 50
# Of these, the very first ones.
FEW = 5
# Standard errors by which a loss is surely lower than another one.
SURELY = 4.0
# Up to this many times the loss at the end of an epoch, that of the next one is alike.
ALIKE = 1.3
# Fraction of the first learning rate below which next to nothing is learned.
SLOW = 0.01
# Steps of log₁₀ in which norms are counted: within 6% of each other.
RESOLUTION = 0.05

# What is kept of each variable, and the statistic that it is of.
FIRST = {
    "norm_first": "norm",
    "weight_first": "weight_norm",
    "ratio_first": "update_ratio",
    "zeros_first": "zero_fraction",
}
LAST = {
    "norm_last": "norm",
    "weight_last": "weight_norm",
    "zeros_last": "zero_fraction",
}
LARGEST = {"norm_largest": "norm", "ratio_largest": "update_ratio"}


@dataclass
class RunSummary:
    """A run in numbers, of bounded size; `to_dict` is ready for JSON.

    Attributes:
        model: The result of `describe` for the model.
        steps: Number of steps, those of an earlier process included.
        first_step: The first step that was seen, or None.
        outcomes: Number of steps that were `applied`, `clipped`, `held` to the trust
            region, and `nonfinite`.
        rates: First and last learning rate, NaN before the first step.
        peak: The highest learning rate so far.
        event_rate: That of the step of the first event; NaN: there was none.
        raised: The largest rise of the learning rate from one step to the next: `step`,
            the rates `before` and `after`, and how many `times`; empty: it never rose.
        slow: Number of steps at less than `SLOW` of the first learning rate.
        held_back: Sum over the held steps of the fraction of the update that was cut
            off.
        early: The first finite losses, `WINDOW` at most.
        recent: The newest finite losses, `WINDOW` at most.
        fits: Number of `fit` calls.
        fit_steps: Number of steps of the newest `fit`.
        fit_early: Its first finite losses, `WINDOW` at most.
        epoch_early: The same of its newest epoch; None: that is the first one.
        epoch_end: The median of the newest losses when that epoch began.
        norm: `first`, `last` and `largest` finite global norm.
        levels: Count of healthy steps by global norm, in bins of `RESOLUTION` of
            log₁₀.
        first_bad: The first step that was not finite: `step`, the `loss` in it, the
            global norm in the step `before` it, the `variables` whose gradients were
            not finite, the loss `scale` (0: none), and where known what
            `explain_batch` says of its `forward` pass. Empty: there was none.
        variables: Name to a dict of `norm_first`, `norm_last`, `norm_largest`,
            `largest_step`, and so on, each the value of a finite one.
        kinds: Kind of event to their `count`, and the `first` and `last` of them.
        actions: Action to number of events.
        tripped: Number of steps with an event.
        first_event: The first event, as a dict, or None.
        error: The exception that ended the newest `fit` in a step, a str; None: none.
    """

    model: dict = field(default_factory=dict)
    steps: int = 0
    first_step: int | None = None
    outcomes: dict = field(
        default_factory=lambda: dict.fromkeys(
            ("applied", "clipped", "held", "nonfinite"), 0
        )
    )
    held_back: float = 0.0
    peak: float = float("nan")
    event_rate: float = float("nan")
    raised: dict = field(default_factory=dict)
    slow: int = 0
    rates: list = field(default_factory=lambda: [float("nan")] * 2)
    early: list = field(default_factory=list)
    recent: list = field(default_factory=list)
    fits: int = 0
    fit_steps: int = 0
    fit_early: list = field(default_factory=list)
    epoch_early: list | None = None
    epoch_end: float = math.nan
    norm: dict = field(default_factory=dict)
    levels: dict = field(default_factory=dict)
    first_bad: dict = field(default_factory=dict)
    variables: dict = field(default_factory=dict)
    kinds: dict = field(default_factory=dict)
    actions: dict = field(default_factory=dict)
    tripped: int = 0
    first_event: dict | None = None
    error: str | None = None

    def begin_fit(self):
        """Called before a `fit`: its data and targets may differ from earlier ones."""
        self.fits += 1
        self.error = None
        self.fit_steps, self.fit_early, self.epoch_early = 0, [], None

    def begin_epoch(self):
        """Called before an epoch; those of the data begin alike."""
        self.epoch_early = []
        if self.recent:
            self.epoch_end = self.losses()[1]

    def take(self, rows, events):
        """Adds newly drained `Rows` and their `Event`s."""
        if not len(rows):
            return
        if self.first_step is None:
            self.first_step = int(rows.steps[0])
        self.steps += len(rows)
        unseen = self.first_event is None
        self.add(events)
        self._take_rates(rows)
        if unseen and self.first_event is not None:
            own = rows.scalars["learning_rate"][rows.steps == self.first_event["step"]]
            self.event_rate = float(own[0]) if len(own) else float("nan")
        losses = rows.judged_loss[np.isfinite(rows.judged_loss)].tolist()
        self.early = (self.early + losses)[:WINDOW]
        self.fit_steps += len(rows)
        self.fit_early = (self.fit_early + losses)[:WINDOW]
        if self.epoch_early is not None:
            self.epoch_early = (self.epoch_early + losses)[:WINDOW]
        self.recent = (self.recent + losses)[-WINDOW:]
        self._take_norms(rows, events)
        self._take_variables(rows)

    def add(self, events):
        """Adds events of these steps, or of an earlier process."""
        self.tripped += len({e.step for e in tripped(events)})
        self.outcomes["nonfinite"] += sum(e.kind == "nonfinite" for e in events)
        # A step that is skipped for two reasons is one update that was skipped.
        for _, action in {(event.step, event.action) for event in events}:
            self.actions[action] = self.actions.get(action, 0) + 1
        for event in tripped(events):
            record = dataclasses.asdict(event)
            kind = self.kinds.setdefault(event.kind, {"count": 0, "first": record})
            kind["count"] += 1
            kind["last"] = record
            self.first_event = self.first_event or record

    def quantile(self, share):
        """A quantile of the global norms of the healthy steps, or None.

        Args:
            share: Fraction of these steps with a smaller norm.
        """
        total = sum(self.levels.values())
        seen = 0
        for level in sorted(self.levels, key=int):
            seen += self.levels[level]
            if seen >= share * total:
                return 10 ** ((int(level) + 0.5) * RESOLUTION)
        return None

    @property
    def data(self):
        """What is known of the first batch; see `describe_batch`."""
        return {"inputs": [], "targets": [], **(self.model.get("data") or {})}

    @property
    def is_comparable(self):
        """Whether the early and the recent losses come from the same `fit`."""
        return self.fits < 2 or len(self.fit_early) == WINDOW

    def losses(self):
        """`(early, recent)` loss, medians: a spike is to change neither."""
        early, recent = self._windows()
        return statistics.median(early), statistics.median(recent)

    def first_loss(self):
        """The median of the first few of the early losses."""
        early, _ = self._windows()
        return statistics.median(early[:FEW])

    def reached(self):
        """The loss that the model has reached, a median.

        Of the newest losses, or of the first ones of the newest epoch, if that is
        surely less and the loss is not above that at the end of the epoch before: data
        in a fixed order may end with what is hardest.
        """
        _, recent = self._windows()
        level, begin = statistics.median(recent), self.epoch_early or []
        if len(begin) < len(recent) or level > ALIKE * self.epoch_end:
            return level
        lower = statistics.median(begin[: len(recent)])
        return lower if lower < level - SURELY * self.noise() else level

    def noise(self):
        """The standard error of `early - recent`, from the spread of the losses."""
        return math.hypot(*map(_median_error, self._windows()))

    def _windows(self):
        """The early and the recent losses that are compared, two lists.

        Those of the newest `fit`, where it has enough; else those of all steps.
        """
        early, steps = self.early, self.steps
        if self.fits > 1 and self.is_comparable:
            early, steps = self.fit_early, self.fit_steps
        # In a short run the two windows overlap.
        count = max(1, steps // 4)
        return early[:count], self.recent[-count:]

    @property
    def top_rate(self):
        """The highest learning rate so far."""
        return self.rates[0] if math.isnan(self.peak) else self.peak

    @property
    def warms_up(self):
        """Whether the learning rate is still rising."""
        return self.rates[1] >= self.peak and self.rates[1] > self.rates[0]

    def to_dict(self):
        """All of it as plain data; what is not finite is a string such as `"nan"`."""
        return _plain(dataclasses.asdict(self))

    def _take_rates(self, rows):
        scalars = rows.scalars
        rate, factor = scalars["learning_rate"], scalars["rate_factor"]
        first = self.rates[0] if np.isfinite(self.rates[0]) else float(rate[0])
        nexts = (rate * factor).astype("float64")
        self._take_rises(rows.steps, [self.rates[1], *nexts[:-1]], rate)
        self.rates = [first, float(nexts[-1])]
        self.peak = float(np.fmax(self.peak, rate.max()))
        self.slow += int((rate < SLOW * first).sum())
        self.outcomes["applied"] += int((scalars["outcome"] == APPLIED).sum())
        self.outcomes["clipped"] += int((scalars["clipped"] > 0).sum())
        self.outcomes["held"] += int((scalars["held"] > 0).sum())
        self.held_back += float(scalars["held"].sum())

    def _take_rises(self, steps, before, after):
        for step, low, high in zip(steps.tolist(), before, after, strict=True):
            if low > 0 and high / low > max(1.0, self.raised.get("times", 1.0)):
                rates = {"before": float(low), "after": float(high)}
                self.raised = {"step": step, **rates, "times": float(high / low)}

    def _take_norms(self, rows, events):
        norms = rows.scalars["global_norm"].astype("float64")
        finite = np.isfinite(norms)
        broken = [e for e in events if e.kind == "nonfinite"]
        if broken and not self.first_bad:
            place = rows.steps.tolist().index(broken[0].step)
            before = norms[:place][finite[:place]]
            self.first_bad = {
                "step": broken[0].step,
                "loss": float(rows.scalars["loss"][place]),
                "before": float(before[-1]) if len(before) else self.norm.get("last"),
                "variables": [
                    name
                    for name, count in zip(
                        rows.layout.variables,
                        rows.statistic("nonfinite_count")[place],
                        strict=True,
                    )
                    if count > 0
                ],
                "scale": broken[0].baseline,
            }
        if not finite.any():
            return
        values = norms[finite]
        self.norm.setdefault("first", float(values[0]))
        self.norm["last"] = float(values[-1])
        self.norm["largest"] = max(self.norm.get("largest", 0.0), float(values.max()))
        eventful = np.isin(rows.steps, [e.step for e in events])
        applied = rows.scalars["outcome"] == APPLIED
        sound = norms[finite & ~eventful & applied & (norms > 0)]
        levels = np.floor(np.log10(sound) / RESOLUTION).astype(int)
        for level, count in Counter(levels.tolist()).items():
            self.levels[str(level)] = self.levels.get(str(level), 0) + count

    def _take_variables(self, rows):
        names = rows.layout.variables
        records = [self.variables.setdefault(name, {}) for name in names]
        norms = np.where(
            np.isfinite(rows.statistic("norm")), rows.statistic("norm"), -1
        )
        places = norms.argmax(axis=0)
        for i, record in enumerate(records):
            value = float(norms[places[i], i])
            if value > record.get("norm_largest", -1.0):
                record["largest_step"] = int(rows.steps[places[i]])
        for pick, wanted in ((_first, FIRST), (_last, LAST), (_largest, LARGEST)):
            for key, statistic in wanted.items():
                values = pick(rows.statistic(statistic))
                for record, value in zip(records, values.tolist(), strict=True):
                    if not np.isfinite(value):
                        continue
                    if wanted is FIRST and key in record:
                        continue
                    if wanted is LARGEST:
                        value = max(value, record.get(key, value))
                    record[key] = value


def _first(values):
    """Returns the first finite value of each column of [T, V], NaN if there is none."""
    finite = np.isfinite(values)
    chosen = values[finite.argmax(axis=0), np.arange(values.shape[1])]
    return np.where(finite.any(axis=0), chosen, np.nan)


def _last(values):
    return _first(values[::-1])


def _largest(values):
    largest = np.where(np.isfinite(values), values, -np.inf).max(axis=0)
    return np.where(np.isfinite(largest), largest, np.nan)


def _plain(data):
    """Converts floats that JSON does not know to strings."""
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, float) and not np.isfinite(data):
        return str(data)
    return data


def _median_error(values):
    """Estimates the standard error of the median of normally distributed values.

    Formula: 1.25 · 1.48 · (median absolute deviation) / √n.
    """
    middle = statistics.median(values)
    deviation = statistics.median(abs(value - middle) for value in values)
    return 1.25 * 1.48 * deviation / math.sqrt(len(values))
