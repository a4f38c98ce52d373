"""A run as it was recorded on disk."""

from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.records.events import Event
from keras_gradwatch.records.scalars import StepScalars


@dataclass(repr=False)
class Run(StepScalars):
    """One recorded run, as `keras_gradwatch.load` returns it.

    Attributes:
        name: Name of the run, from its directory.
        directory: Directory of its files.
        steps: int64 array [T], ascending; a long record does not contain all steps.
        scalars: Dict of names to float32 arrays [T]: those of `records.rows.SCALARS`,
            `trust_radius`, `rate_factor`, and the upper limits `limit_global_norm` and
            `limit_loss` in force in the step; NaN where a value is unknown. `loss`,
            `global_norm`, `clipped_norm`, `learning_rate`, `applied`, `held` and others
            are also attributes.
        variables: Names of the V variables, in the order of the network.
        norms: float32 array [T, V], gradient norm of each variable; infinite where the
            gradient is not finite, NaN where it was not measured.
        statistics: Dict of names, those of `statistics.NAMES` that were sampled, to
            pairs of an int64 array [S], the sampled steps, and a float32 array [S, V].
        events: List of `Event`s, in order.
        report: Dict of the last report (`Report.to_dict()`), or None.
        histograms: Dict of step to a float32 array [V, 32]: for each variable the
            counts of the gradient's values in 30 equal bins, then the lower edge of the
            first bin and the upper edge of the last one; empty without
            `histogram_freq`.
        status: Dict of the content of `run.json`, or None.

    Example:

    ```python
    run = keras_gradwatch.load("logs")
    run["dense/kernel"]  # float32 [T], its gradient norms
    run.loss[np.searchsorted(run.steps, 120)]  # at step 120, or the next one recorded
    ```
    """

    name: str
    directory: str
    steps: np.ndarray
    scalars: dict
    variables: tuple
    norms: np.ndarray
    statistics: dict = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    report: dict | None = None
    histograms: dict = field(default_factory=dict)
    status: dict | None = None

    def _scalar(self, name):
        return self.scalars[name]

    def _columns(self):
        """One array [T] for each scalar, and for the norm of each variable."""
        norms = {f"{v}:norm": self.norms[:, i] for i, v in enumerate(self.variables)}
        return {"step": self.steps, **self.scalars, **norms}

    def __getitem__(self, name):
        """The gradient norm of one variable, float32 array [T].

        Raises:
            KeyError: If no variable has this name.
        """
        return self.norms[:, self._known(name)]

    def __repr__(self):
        last = f"up to step {self.steps[-1]}, " if len(self.steps) else ""
        return (
            f"<Run {self.name!r}: {len(self.steps)} steps of {len(self.variables)} "
            f"variables, {last}{len(self.events)} events>"
        )
