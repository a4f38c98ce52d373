"""The statistics of the layer that was chosen, over the steps."""

from bokeh.models import ColumnDataSource, Range1d

from keras_gradwatch.dashboard.figures import chart, show_legend, show_steps

LINES = {
    "norm": ("gradient norm", "#1f77b4"),
    "max_abs": ("largest value", "#d62728"),
    "std": ("standard deviation", "#9467bd"),
    "weight_norm": ("norm of the weights", "#7f7f7f"),
}


def y_ranges():
    """The y ranges that all runs share, which the script sets."""
    return {"norm": Range1d(0.1, 10), "update_ratio": Range1d(0.1, 10)}


def drill_down(shared, y_ranges):
    """The charts of one run, and the sources that the script fills.

    Args:
        shared: Arguments of `figures.chart` that all charts of a run share.
        y_ranges: Dict of `y_ranges()`.

    Returns:
        Pair of a list of figures and a dict of statistics to `ColumnDataSource`.
    """
    log = {"y_axis_type": "log", **shared}
    norms = chart(170, y_range=y_ranges["norm"], **log)
    ratio = chart(100, y_range=y_ranges["update_ratio"], **log)
    zeros = chart(80, y_range=Range1d(0, 1.02), **shared)
    sources = {}
    for name, (label, color) in LINES.items():
        sources[name] = _line(norms, color, label)
    sources["update_ratio"] = _line(ratio, "#2ca02c", "update / weights")
    sources["zero_fraction"] = _line(zeros, "#8c564b", "zeros")
    show_legend(norms)
    norms.legend.click_policy = "hide"
    ratio.legend.visible = zeros.legend.visible = False
    labels = ("gradient", "update /\nweights", "share of\nzeros")
    for made, label in zip((norms, ratio, zeros), labels, strict=True):
        made.yaxis.axis_label = label
    zeros.yaxis.ticker = [0, 0.5, 1]
    show_steps(zeros)
    return [norms, ratio, zeros], sources


def _line(made, color, label):
    source = ColumnDataSource({"x": [], "y": []})
    made.line("x", "y", source=source, color=color, width=1.4, legend_label=label)
    made.scatter("x", "y", source=source, color=color, size=2)
    return source
