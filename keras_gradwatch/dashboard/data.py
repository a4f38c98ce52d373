"""The data of the page: arrays with a row for each variable."""

import numpy as np

from keras_gradwatch.dashboard.blocks import blocks, labels
from keras_gradwatch.dashboard.columns import columns

# Columns of the norms, and values of all other statistics of a run, at most.
COLUMNS = 2000
VALUES = 90_000
MAX_EVENTS = 1000
# Statistics of the heatmap, and those that only the drill-down shows.
MEASURES = ("update_ratio", "zero_fraction")
DETAILS = ("max_abs", "std", "weight_norm")


def steps_of(run, limit=COLUMNS):
    """Returns the `Columns` of a run's steps."""
    return columns(run.steps, limit, [event.step for event in run.events])


def payload(run, shown):
    """Converts a `Run`, with its `Columns`, to plain data and arrays for the script."""
    variables = list(run.variables)
    sampled = {name: _sampled(run, name) for name in (*MEASURES, *DETAILS)}
    each = max(20, VALUES // max(1, len(variables) * len(sampled)))
    return {
        "name": run.name,
        "variables": variables,
        "labels": labels(variables),
        "blocks": blocks(variables),
        "medians": _medians(run.norms),
        "measures": {
            "norm": _table(shown, run.norms),
            **{name: _thinned(*sampled[name], each) for name in sampled},
        },
        "histograms": _histograms(run),
        "events": [_event(event, variables) for event in run.events[:MAX_EVENTS]],
    }


def _sampled(run, name):
    nothing = (np.zeros(0, "int64"), np.zeros((0, len(run.variables)), "float32"))
    return run.statistics.get(name, nothing)


def _thinned(steps, values, limit):
    return _table(columns(steps, max(2, limit)), values)


def _table(shown, values):
    return {
        "first": shown.first.astype("float64"),
        "last": shown.last.astype("float64"),
        # A row for each variable: it is read as a whole.
        "values": np.ascontiguousarray(shown.largest(values).T, "float32").ravel(),
    }


def _histograms(run):
    """Returns steps, and values [V, S, 32] in one row; None if there are none."""
    if not run.histograms:
        return None
    values = np.stack(list(run.histograms.values()), axis=1)
    return {
        "steps": np.array(list(run.histograms), "float64"),
        "values": np.ascontiguousarray(values, "float32").ravel(),
    }


def _medians(norms):
    """Returns each variable's median finite positive norm, float32 [V], or NaN."""
    medians = np.full(norms.shape[1], np.nan, "float32")
    for v, column in enumerate(norms.T):
        known = column[np.isfinite(column) & (column > 0)]
        if len(known):
            medians[v] = np.median(known)
    return medians


def _event(event, variables):
    known = event.variable in variables
    return {
        "step": event.step,
        "variable": variables.index(event.variable) if known else None,
        "action": event.action,
        "message": event.message,
    }
