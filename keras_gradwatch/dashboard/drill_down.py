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
    """Returns the y ranges that all runs share, which the script sets."""
    return {
        "norm": Range1d(0.1, 10),
        "update_ratio": Range1d(0.1, 10),
        "histogram": Range1d(-1, 1),
    }


def drill_down(shared, y_ranges, recorded, histograms=False):
    """Draws the charts of one run; the script fills the sources and cells.

    Only lines of the statistics in `recorded` are in the legend. Returns `(figures,
    sources, cells)`, with `sources` by statistic; `cells` may be None.
    """
    log = {"y_axis_type": "log", **shared}
    norms = chart(170, y_range=y_ranges["norm"], **log)
    ratio = chart(100, y_range=y_ranges["update_ratio"], **log)
    zeros = chart(80, y_range=Range1d(0, 1.02), **shared)
    sources = {}
    for name, (label, color) in LINES.items():
        sources[name] = _line(norms, color, label if name in recorded else None)
    sources["update_ratio"] = _line(ratio, "#2ca02c")
    sources["zero_fraction"] = _line(zeros, "#8c564b")
    show_legend(norms)
    norms.legend.click_policy = "hide"
    labels = ("gradient", "update /\nweights", "fraction\nof zeros")
    for made, label in zip((norms, ratio, zeros), labels, strict=True):
        made.yaxis.axis_label = label
    zeros.yaxis.ticker = [0, 0.5, 1]
    figures, cells = [norms, ratio, zeros], None
    if histograms:
        values = chart(150, y_range=y_ranges["histogram"], **shared)
        values.yaxis.axis_label = "values of\nthe gradient"
        cells = _cells(values)
        figures.append(values)
    show_steps(figures[-1])
    return figures, sources, cells


def _cells(made):
    """Draws one rectangle for each bin of each histogram, the darker the fuller."""
    source = ColumnDataSource({k: [] for k in ("left", "right", "bottom", "top", "a")})
    ends = ("left", "right", "top", "bottom")
    made.quad(*ends, fill_alpha="a", line_color=None, color="#1f77b4", source=source)
    return source


def _line(made, color, label=None):
    source = ColumnDataSource({"x": [], "y": []})
    legend = {"legend_label": label} if label else {}
    made.line("x", "y", source=source, color=color, width=1.4, **legend)
    made.scatter("x", "y", source=source, color=color, size=2)
    return source
