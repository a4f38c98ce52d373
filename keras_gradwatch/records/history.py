"""All recorded steps as arrays."""

import csv

import numpy as np

from keras_gradwatch.records import plots
from keras_gradwatch.records.rows import ADDED, SCALARS
from keras_gradwatch.records.run import Run
from keras_gradwatch.records.scalars import StepScalars
from keras_gradwatch.statistics.names import NAMES


class History(StepScalars):
    """Recorded steps, as arrays; its attributes are those of `GradientHistory`.

    Args:
        max_steps: Number of steps to keep, the newest ones; None: all steps.
    """

    def __init__(self, max_steps=None):
        self.max_steps = max_steps
        self.events = []
        self._parts = []

    def _rows(self):
        """All `Rows` so far, a list."""
        return self._parts

    def append(self, rows, events):
        """Appends `Rows` and their events; drops the oldest beyond `max_steps`."""
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
        place = self._known(name)
        return self.statistics["norm"][:, place]

    def heatmap(self):
        """Plots the norm of every variable at every step, a `Figure` of matplotlib."""
        return plots.heatmap(self)

    def to_run(self, name="run", report=None):
        """These steps as a `Run`, the form in which recorded runs are read.

        Args:
            name: Name of the run.
            report: `Report`, or None.
        """
        steps, statistics = self.steps, self.statistics
        # A gradient that is not finite must not look like one that is not measured.
        norms = statistics.pop("norm")
        norms[statistics["nonfinite_count"] > 0] = np.inf
        sampled = {}
        for statistic, values in statistics.items():
            known = ~np.isnan(values).all(axis=1)
            if known.any():
                sampled[statistic] = steps[known], values[known]
        return Run(
            name=name,
            directory="",
            steps=steps,
            scalars={n: self._scalar(n) for n in (*SCALARS, *ADDED)},
            variables=tuple(self.variables),
            norms=norms,
            statistics=sampled,
            events=list(self.events),
            report=None if report is None else report.to_dict(),
        )

    def __repr__(self):
        name, steps, variables = type(self).__name__, self.steps, self.variables
        return (
            f"<{name}: {len(steps)} steps of {len(variables)} variables, "
            f"{len(self.events)} events>"
        )

    def to_csv(self, path, begin=None, end=None):
        """Writes one line per step: scalars, then every statistic of every variable.

        Args:
            path: File to write; an existing one is replaced.
            begin: The first step to write; None: the first one.
            end: The step after the last one to write; None: all remaining steps.
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
