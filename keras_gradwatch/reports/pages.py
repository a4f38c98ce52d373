"""The commands `gradwatch html` and `gradwatch compare`."""

import numpy as np

from keras_gradwatch.dashboard.page import page
from keras_gradwatch.dashboard.runs import read
from keras_gradwatch.records.rows import REVERTED, SKIPPED

# Steps whose median is the last loss.
LAST = 20
COLUMNS = (
    "steps",
    "first event",
    "loss: first",
    "last",
    "largest norm",
    "non-finite",
    "not applied",
    "limited",
    "last learning rate",
)


def write(logdirs, path):
    """Writes the dashboard of all runs in some directories to a file.

    Returns the `Run`s in it and why others are not; raises ValueError if there are
    none.
    """
    runs, problems = read(logdirs)
    if not runs:
        raise ValueError("\n".join(problems))
    text = page(runs, problems)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return runs, problems


def table(runs):
    """Formats a table of runs, one per line."""
    rows = [("", *COLUMNS), *((run.name, *_numbers(run)) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _numbers(run):
    norms, outcome = run.global_norm, run.scalars["outcome"]
    return (
        str(run.steps[-1] + 1) if len(run.steps) else "0",
        str(run.events[0].step) if run.events else "-",
        _number(run.loss[:1]),
        _number(run.loss[-LAST:]),
        _number(norms, np.max),
        _share(run.scalars["nonfinite"] > 0),
        _share(np.isin(outcome, (SKIPPED, REVERTED))),
        _share(run.held),
        _number(run.learning_rate[-1:]),
    )


def _number(values, of=np.median):
    finite = values[np.isfinite(values)]
    return f"{of(finite):.3g}" if len(finite) else "-"


def _share(flags):
    """Formats a fraction of the recorded steps; a long run's record is thinned out."""
    return f"{flags.mean():.0%}" if flags.any() else "0"
