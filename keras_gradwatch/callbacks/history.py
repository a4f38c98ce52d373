"""All that was recorded, as arrays."""

import csv

import numpy as np

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.methods import whole
from keras_gradwatch.records.rows import APPLIED, OVERFLOWED
from keras_gradwatch.train_step.statistics import NAMES


class GradientHistory(WatchingCallback):
    """Keeps every statistic of every step in memory, over all `fit` calls.

    It only observes. Memory grows with the steps: 4·(11 + 8·V + 4·D) + 8 bytes each for
    V variables and D detectors; `GradWatch.history` is the bounded one.

    Args:
        sample_freq: Steps between two samples of the statistics that cost a further
            pass (all but `norm` and `nonfinite_count`), >= 1. The first step is
            always sampled; of several callbacks the one that wants most is heard.
        max_steps: How many of the newest steps are kept, or None for all.

    Attributes:
        steps: int64 array [T], from 0, monotonic over `fit` calls.
        global_norm: float32 array [T], before clipping.
        clipped_norm: float32 array [T], after clipping.
        loss: float32 array [T], each step's own; NaN where it cannot be seen.
        learning_rate: float32 array [T], the rate in effect in each step.
        applied: bool array [T], False where the update was skipped or put back.
        held: bool array [T], True where the update was cut down to the trust region.
        trust_radius: float32 array [T], the share of a kernel that an update was
            allowed to change; NaN where any was.
        loss_scale: float32 array [T], what the loss was multiplied by; NaN where it
            was not.
        overflowed: bool array [T], True where a dynamic loss scale overflowed, and its
            optimizer left the update out: no event.
        variables: List of the V names of the variables.
        statistics: Dict of name (see `statistics.NAMES`) to float32 array [T, V]; NaN
            where a statistic was not sampled, or a variable has no gradient.
        events: List of `Event`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    history = keras_gradwatch.callbacks.GradientHistory()
    model.fit(x, y, callbacks=[history])
    history.statistics["norm"][:, history.variables.index("dense/kernel")]
    ```
    """

    def __init__(self, sample_freq=1, max_steps=None):
        super().__init__()
        self.sample_freq = whole(self, "sample_freq", sample_freq, at_least=1)
        if max_steps is not None:
            max_steps = whole(self, "max_steps", max_steps, at_least=1)
        self.max_steps = max_steps
        self.events = []
        self._parts = []
        self._owner = None
        self._monitor = None

    def request(self):
        return Request("GradientHistory", sample_freq=self.sample_freq)

    def set_model(self, model):
        """Watches `model`.

        Raises:
            ValueError: If the history belongs to another model already.
        """
        if self._owner is not None and self._owner is not model:
            raise ValueError(
                f"This GradientHistory holds the steps of the model "
                f"{self._owner.name!r}, and cannot go on with {model.name!r}. Make a "
                "new one for each model."
            )
        self._owner = model
        super().set_model(model)
        self.follow(self._gradwatch)

    def follow(self, monitor):
        """Has whoever reads this history see what `monitor` still has in its ring."""
        self._monitor = monitor

    def _rows(self):
        # After an interrupted `fit` nobody else drains the last steps.
        if self._monitor is not None:
            self._monitor.drain()
        return self._parts

    def on_rows(self, rows, events):
        """Appends newly drained rows."""
        self.append(rows, events)

    def append(self, rows, events):
        """Appends `Rows` and their events, and drops the oldest beyond `max_steps`."""
        self._parts.append(rows)
        self.events.extend(events)
        if self.max_steps is None:
            return
        kept = sum(len(part) for part in self._parts)
        while kept - len(self._parts[0]) >= self.max_steps:
            kept -= len(self._parts.pop(0))
        first = self._parts[0].steps[0]
        self.events = [e for e in self.events if e.step >= first]

    def _scalar(self, name):
        parts = [rows.scalars[name] for rows in self._rows()]
        return np.concatenate(parts) if parts else np.zeros((0,), "float32")

    @property
    def steps(self):
        parts = [rows.steps for rows in self._rows()]
        return np.concatenate(parts) if parts else np.zeros((0,), "int64")

    @property
    def global_norm(self):
        return self._scalar("global_norm")

    @property
    def clipped_norm(self):
        return self._scalar("clipped_norm")

    @property
    def loss(self):
        return self._scalar("loss")

    @property
    def learning_rate(self):
        """float32 array [T], the rate in effect in each step."""
        return self._scalar("learning_rate")

    @property
    def applied(self):
        return self._scalar("outcome") == APPLIED

    @property
    def loss_scale(self):
        """float32 array [T], what the loss was multiplied by."""
        return self._scalar("loss_scale")

    @property
    def held(self):
        """Where the update was cut down to the trust region, bool [T]."""
        return self._scalar("held") > 0

    @property
    def trust_radius(self):
        """What an update was allowed to change, float32 [T]."""
        return self._scalar("trust_radius")

    @property
    def overflowed(self):
        """bool array [T], the overflows that a dynamic loss scale dealt with."""
        return self._scalar("outcome") == OVERFLOWED

    @property
    def variables(self):
        # Layers may be unfrozen between fits: the union, in order of appearance.
        names = {}
        for rows in self._rows():
            names.update(dict.fromkeys(rows.layout.variables))
        return list(names)

    @property
    def statistics(self):
        names = self.variables
        result = {name: [] for name in NAMES}
        for rows in self._rows():
            own = rows.layout.variables
            places = [own.index(v) if v in own else -1 for v in names]
            for statistic in NAMES:
                values = rows.statistic(statistic)
                missing = np.full((len(rows), 1), np.nan, "float32")
                result[statistic].append(np.hstack([values, missing])[:, places])
        empty = np.zeros((0, len(names)), "float32")
        return {n: np.concatenate(p) if p else empty for n, p in result.items()}

    def to_csv(self, path, begin=None, end=None):
        """Writes one line a step: the scalars, then every statistic of every variable.

        Args:
            path: File to write; an existing one is replaced.
            begin: The first step that is written; None: from the first one on.
            end: The step before which it ends; None: up to the last one.
        """
        statistics = self.statistics
        columns = {
            "step": self.steps,
            "global_norm": self.global_norm,
            "clipped_norm": self.clipped_norm,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "applied": self.applied.astype(int),
            "loss_scale": self.loss_scale,
            "held": self.held.astype(int),
            "trust_radius": self.trust_radius,
            "overflowed": self.overflowed.astype(int),
        }
        for i, variable in enumerate(self.variables):
            for name in NAMES:
                columns[f"{variable}:{name}"] = statistics[name][:, i]
        chosen = np.ones(len(self.steps), bool)
        if begin is not None:
            chosen &= self.steps >= begin
        if end is not None:
            chosen &= self.steps < end
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            chosen_rows = zip(*(c[chosen] for c in columns.values()), strict=True)
            writer.writerows(chosen_rows)
