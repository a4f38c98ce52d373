"""Reading a recorded run."""

import os

from keras_gradwatch.records import record_file
from keras_gradwatch.records.files import read_json
from keras_gradwatch.records.find import find_all
from keras_gradwatch.records.incidents import RECORD, RUN
from keras_gradwatch.records.run import Run


def load(logdir: str | os.PathLike[str]) -> Run:
    """Reads the record of a run; needs neither Keras nor a backend.

    The run may still be running.

    Args:
        logdir: The `log_dir` (or the `state_dir`) of the run, or `gradwatch` in it.

    Returns:
        `Run`, with at most 2,000 steps. A longer run is thinned out: it contains up to
        1,000 of the last 200 steps and the steps around events; and of every 2 (or 4,
        8, ...) of the others, the first one and the one with the largest norm.

    Raises:
        ValueError: If there is no run, or more than one, or its record cannot be read.

    Example:

    ```python
    model.fit(x, y, callbacks=[keras_gradwatch.GradWatch("logs")])
    run = keras_gradwatch.load("logs")
    run["dense/kernel"]  # the gradient norms of a variable, float32 [T]
    run.events, run.report, run.plot()
    ```
    """
    runs = find_all(logdir)
    if len(runs) > 1:
        names = "".join(f"\n  {run}" for run in runs)
        raise ValueError(f"there are {len(runs)} runs in {logdir!r}; load one:{names}")
    directory = os.path.abspath(runs[0])
    path = os.path.join(directory, RECORD)
    if not os.path.exists(path):
        raise ValueError(f"the run in {runs[0]!r} has no {RECORD}")
    contents = record_file.read(path)
    contents.thin()
    rows = contents.rows
    parent, name = os.path.split(directory)
    return Run(
        name=os.path.basename(parent) if name == "gradwatch" else name,
        directory=directory,
        steps=rows["step"].copy(),
        scalars={
            name: rows["scalars"][:, i].copy()
            for i, name in enumerate(record_file.COLUMNS)
        },
        variables=contents.variables,
        norms=rows["norms"].copy(),
        statistics=_statistics(contents.samples),
        events=contents.events,
        report=contents.report,
        histograms=contents.histograms,
        status=read_json(os.path.join(directory, RUN)) or None,
    )


def _statistics(samples):
    """Each statistic with the steps in which it was sampled."""
    found = {}
    for k, name in enumerate(record_file.STATISTICS):
        values = samples["values"][:, k]
        known = ~(values != values).all(axis=1)  # NaN: not sampled
        if known.any():
            found[name] = samples["step"][known], values[known]
    return found
