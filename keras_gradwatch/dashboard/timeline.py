"""Loss, norms, learning rate, and what was done, over the steps."""

import numpy as np
from bokeh.models import ColumnDataSource, Range1d

from keras_gradwatch.dashboard.colors import ACTIONS, logs
from keras_gradwatch.dashboard.figures import chart, show_legend, show_steps
from keras_gradwatch.records.rows import REVERTED, SKIPPED

# Beyond what any axis shows: where a band ends.
TOP = 1e38
# Decades that are shown above most of the values.
HEADROOM = 8
LOSS = ("loss", "limit_loss")
NORMS = ("global_norm", "clipped_norm", "limit_global_norm")


def curves(run, shown):
    """Returns the curves of a run, a dict of names to arrays [C]."""
    found = {"step": shown.first.astype("float64")}
    for name in (*LOSS, *NORMS, "learning_rate"):
        values = run.scalars.get(name, np.full(len(run.steps), np.nan, "float32"))
        largest = shown.largest(np.asarray(values, "float64"))
        found[name] = np.where(np.isinf(largest), np.nan, largest)
    outcome = run.scalars.get("outcome", np.zeros(len(run.steps)))
    undone = np.isin(outcome, (SKIPPED, REVERTED)).astype("float64")
    held = np.asarray(run.scalars.get("held", np.zeros(len(run.steps)))) > 0
    found["undone"] = _share(undone, shown)
    found["changed"] = np.minimum(1, found["undone"] + _share(held, shown))
    return found


def _share(flags, shown):
    """Returns the fraction of flagged steps over a 50th of the run, at each column."""
    if not len(flags):
        return np.zeros(0)
    window = max(1, len(flags) // 50)
    sums = np.concatenate([[0.0], np.cumsum(flags)])
    ends = np.append(shown.starts[1:], len(flags))
    begins = np.maximum(0, ends - window)
    return (sums[ends] - sums[begins]) / (ends - begins)


def ranges(runs):
    """Returns the y ranges that all runs share: `loss`, `norm`, `rate`."""
    return {
        "loss": _log_range(runs, LOSS[:1], LOSS[1]),
        "norm": _log_range(runs, NORMS[:2], NORMS[2]),
        "rate": _log_range(runs, ("learning_rate",), least=0.3),
    }


def _log_range(runs, names, limit=None, least=0.15):
    """Returns the range of all values but a few of the smallest, and up to a limit."""
    known = logs([run[name] for run in runs for name in names])
    low, high = -1.0, 1.0
    if len(known):
        low, most, high = np.quantile(known, [0.01, 0.9, 1])
        high = min(high, most + HEADROOM)
        limits = logs([run[limit] for run in runs] if limit else [])
        if len(limits):
            high = max(high, min(np.median(limits), high + 1))
    room = max(least, 0.06 * (high - low))
    return Range1d(10 ** (low - room), 10 ** (high + room))


def timeline(run, drawn, y_ranges, shared):
    """Draws a run from its `curves`; returns its charts from top to bottom, a list."""
    source = ColumnDataSource(drawn)
    marks = chart(44, y_range=Range1d(0, 1), **shared)
    marks.yaxis.axis_label = "events"
    marks.yaxis.axis_label_orientation = "horizontal"
    marks.yaxis.ticker = []
    marks.grid.visible = False
    loss = chart(130, y_range=y_ranges["loss"], y_axis_type="log", **shared)
    norm = chart(150, y_range=y_ranges["norm"], y_axis_type="log", **shared)
    rate = chart(84, y_range=y_ranges["rate"], y_axis_type="log", **shared)
    share = chart(72, y_range=Range1d(0, 1.02), **shared)
    for made, limit in ((loss, "limit_loss"), (norm, "limit_global_norm")):
        if np.isfinite(drawn[limit]).any():
            _band(made, drawn, limit)
    _line(loss, source, "loss", "#1f77b4", "loss")
    # Where both are equal, the thin line lies on the thick one.
    _line(norm, source, "clipped_norm", "#e69f00", "after clipping", 3)
    _line(norm, source, "global_norm", "#1f77b4", "before clipping")
    _line(rate, source, "learning_rate", "#2ca02c", "learning rate")
    areas = (
        ("undone", "changed", "#e69f00", "limited"),
        (0, "undone", "#d62728", "skipped or reverted"),
    )
    for low, high, color, label in areas:
        share.varea(
            "step", low, high, source=source, color=color, alpha=0.6, legend_label=label
        )
    share.yaxis.ticker = [0, 0.5, 1]
    labels = ("loss", "global norm", "learning\nrate", "fraction of\nupdates")
    for made, label in zip((loss, norm, rate, share), labels, strict=True):
        made.yaxis.axis_label = label
    _events(run, marks, (loss, norm, rate, share))
    for made in (norm, share):
        show_legend(made)
    loss.toolbar_location = "above"
    loss.height += 30
    show_steps(share)
    return [marks, loss, norm, rate, share]


def _line(made, source, name, color, label, width=1.4):
    made.line("step", name, source=source, color=color, width=width, legend_label=label)
    # A single value between two that are missing is no line.
    made.scatter("step", name, source=source, color=color, size=2)
    made.legend.visible = False


def _band(made, drawn, limit):
    """Draws a band where a detector trips: above the dashed line."""
    step, height = drawn["step"], drawn[limit]
    known = np.isfinite(height)
    edges = np.append(step[1:], step[-1] + 1)[known]
    made.quad(
        left=step[known],
        right=edges,
        bottom=height[known],
        top=np.full(known.sum(), TOP),
        color="#d62728",
        alpha=0.1,
        line_width=0,
    )
    made.step(step, height, mode="after", color="#d62728", line_dash="4 3", alpha=0.6)


def _events(run, marks, charts):
    """Draws events as marks, and as lines through the charts."""
    steps = [float(event.step) for event in run.events]
    colors = [ACTIONS.get(event.action, "#8a8a8a") for event in run.events]
    source = ColumnDataSource({"step": steps, "color": colors})
    for made in charts:
        made.vspan("step", source=source, color="color", alpha=0.35, line_width=1)
    marks.scatter(
        "step",
        0.5,
        source=source,
        color="color",
        marker="inverted_triangle",
        size=13,
        line_color="white",
        line_width=0.6,
    )
