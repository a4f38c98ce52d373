"""A run as it was recorded on disk."""

from dataclasses import dataclass, field

import numpy as np

from keras_gradwatch.records.events import Event


@dataclass
class Run:
    """One recorded run, as `keras_gradwatch.load` returns it.

    Attributes:
        name: Name of the run, from its directory.
        directory: Where its files are.
        steps: int64 array [T], ascending; steps may be missing where the record was
            thinned out.
        scalars: Dict of names to float32 arrays [T]: those of `records.rows.SCALARS`,
            `trust_radius`, `rate_factor`, and the upper limits `limit_global_norm` and
            `limit_loss` in force in the step; NaN where a value is not known.
        variables: Names of the V variables, in the order of the network.
        norms: float32 array [T, V], gradient norm of each variable.
        statistics: Dict of names to pairs of an int64 array [S], the sampled steps, and
            a float32 array [S, V].
        events: List of `Event`s, in order.
        report: Dict of the last report (`Report.to_dict()`), or None.
        status: Dict of what `run.json` says, or None.
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
    status: dict | None = None
