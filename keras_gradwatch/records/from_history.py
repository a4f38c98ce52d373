"""A run that is in memory, in the form in which recorded runs are read."""

import numpy as np

from keras_gradwatch.records.rows import SCALARS
from keras_gradwatch.records.run import Run

# What a row of a run has beside `SCALARS`; limits are not kept in memory.
ADDED = ("trust_radius", "rate_factor")
LIMITS = ("limit_global_norm", "limit_loss")


def from_history(history, name="run", report=None):
    """The steps that a `History` holds, a `Run`.

    Args:
        history: `History`.
        name: Name of the run.
        report: Dict of the report (`Report.to_dict()`), or None.
    """
    steps, statistics = history.steps, history.statistics
    scalars = {n: history.scalar(n) for n in (*SCALARS, *ADDED)}
    scalars |= {n: np.full(len(steps), np.nan, "float32") for n in LIMITS}
    # A gradient that is not finite must not look like one that is not measured.
    norms = statistics.pop("norm").copy()
    norms[statistics["nonfinite_count"] > 0] = np.inf
    sampled = {}
    for statistic, values in statistics.items():
        rows = ~np.isnan(values).all(axis=1) if values.size else np.zeros(0, bool)
        sampled[statistic] = (steps[rows], values[rows])
    return Run(
        name=name,
        directory="",
        steps=steps,
        scalars=scalars,
        variables=tuple(history.variables),
        norms=norms,
        statistics=sampled,
        events=list(history.events),
        report=report,
    )
