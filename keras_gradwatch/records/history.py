"""All that was recorded, as arrays."""

import csv

import numpy as np

from keras_gradwatch.records import plots
from keras_gradwatch.records.rows import APPLIED, OVERFLOWED
from keras_gradwatch.statistics.names import NAMES


class History:
    """Recorded steps, as arrays; its attributes are those of `GradientHistory`.

    Args:
        max_steps: How many of the newest steps are kept, or None for all.
    """

    def __init__(self, max_steps=None):
        self.max_steps = max_steps
        self.events = []
        self._parts = []

    def _rows(self):
        """All `Rows` so far, a list."""
        return self._parts

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

    def scalar(self, name):
        """One of `rows.SCALARS`, `trust_radius` or `rate_factor`, float32 [T]."""
        parts = [rows.scalars[name] for rows in self._rows()]
        return np.concatenate(parts) if parts else np.zeros((0,), "float32")

    @property
    def steps(self):
        parts = [rows.steps for rows in self._rows()]
        return np.concatenate(parts) if parts else np.zeros((0,), "int64")

    @property
    def global_norm(self):
        return self.scalar("global_norm")

    @property
    def clipped_norm(self):
        return self.scalar("clipped_norm")

    @property
    def loss(self):
        return self.scalar("loss")

    @property
    def learning_rate(self):
        """float32 array [T], the rate in effect in each step."""
        return self.scalar("learning_rate")

    @property
    def applied(self):
        return self.scalar("outcome") == APPLIED

    @property
    def loss_scale(self):
        """float32 array [T], what the loss was multiplied by."""
        return self.scalar("loss_scale")

    @property
    def held(self):
        """Where the update was cut down to the trust region, bool [T]."""
        return self.scalar("held") > 0

    @property
    def trust_radius(self):
        """What an update was allowed to change, float32 [T]."""
        return self.scalar("trust_radius")

    @property
    def overflowed(self):
        """bool array [T], the overflows that a dynamic loss scale dealt with."""
        return self.scalar("outcome") == OVERFLOWED

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

    def __getitem__(self, name):
        """The gradient norm of one variable, float32 array [T].

        Raises:
            KeyError: If no variable has this name.
        """
        if name not in self.variables:
            known = ", ".join(self.variables)
            raise KeyError(f"no variable is called {name!r}; there are: {known}")
        return self.statistics["norm"][:, self.variables.index(name)]

    def to_dataframe(self):
        """All that `to_csv` writes, as a `pandas.DataFrame` with the steps as index."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas: `pip install pandas`, or use `to_csv`."
            ) from error
        return pandas.DataFrame(self._columns()).set_index("step")

    def plot(self):
        """Plots loss, norms and learning rate, a `matplotlib.figure.Figure`."""
        return plots.plot(self)

    def heatmap(self):
        """Plots the norm of every variable at every step, a `Figure` of matplotlib."""
        return plots.heatmap(self)

    def __repr__(self):
        name, steps, variables = type(self).__name__, self.steps, self.variables
        return (
            f"<{name}: {len(steps)} steps of {len(variables)} variables, "
            f"{len(self.events)} events>"
        )

    def to_csv(self, path, begin=None, end=None):
        """Writes one line a step: the scalars, then every statistic of every variable.

        Args:
            path: File to write; an existing one is replaced.
            begin: The first step that is written; None: from the first one on.
            end: The step before which it ends; None: up to the last one.
        """
        columns = self._columns()
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

    def _columns(self):
        """One array [T] for each scalar, and for each statistic of each variable."""
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
        return columns
