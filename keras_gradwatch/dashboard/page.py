"""The page of one run or of several: built with Bokeh, shown anywhere."""

import html
import pathlib

import numpy as np

from keras_gradwatch.dashboard import colors
from keras_gradwatch.dashboard.data import COLUMNS, payload, steps_of
from keras_gradwatch.dashboard.verdict import verdict

FOLDER = pathlib.Path(__file__).parent
# Pixels of the frame in a notebook.
FRAME = 900
MISSING = "The dashboard needs Bokeh 3.9 or later: `pip install bokeh`."
NOTICE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><style>{style}</style></head>
<body data-ready="yes"><main>{lines}</main></body>
</html>
"""


class Page(str):
    """A page, an HTML document; a notebook shows it in a frame."""

    def _repr_html_(self):
        style = f"width: 100%; height: {FRAME}px; border: 0"
        return f'<iframe srcdoc="{html.escape(self)}" style="{style}"></iframe>'


def page(runs, problems=(), title=None, script=None, columns=COLUMNS):
    """Renders runs side by side as one HTML document, a `Page`.

    Args:
        problems: List of str: why other runs are not shown.
        title: Title of the document; None: the names of the runs.
        script: URL of Bokeh's script; None: it is embedded.
        columns: Maximum number of columns to which the steps are thinned out.
    """
    try:
        from bokeh.embed import file_html
        from bokeh.resources import INLINE
    except ImportError as error:
        raise ImportError(MISSING) from error

    lines = [f'<p class="verdict bad problem">{html.escape(p)}</p>' for p in problems]
    if not runs:
        return Page(NOTICE.format(style=_read("page.css"), lines="".join(lines)))
    document, names = _document(runs, columns)
    taken = {event.action for run in runs for event in run.events}
    text = file_html(
        document,
        INLINE,
        title=title or ", ".join(run.name for run in runs),
        template=_read("page.html"),
        template_variables={
            "style": _read("page.css"),
            "problems": lines,
            "verdicts": [verdict(run) for run in runs],
            "run_names": [html.escape(run.name) for run in runs],
            "figures": names,
            "legend": {"zero": colors.ZERO, "not_finite": colors.NOT_FINITE},
            "actions": [each for each in colors.ACTIONS.items() if each[0] in taken],
            "script": script,
        },
    )
    return Page(text)


def _known_statistics(run):
    """Returns the names of the statistics that were measured."""
    sampled = run.statistics.items()
    return [name for name, (_, values) in sampled if np.isfinite(values).any()]


def _document(runs, limit):
    """Draws all runs; returns the `Document`, and the names of each run's charts."""
    from bokeh.document import Document
    from bokeh.layouts import column
    from bokeh.models import CustomJS, Range1d, Span

    from keras_gradwatch.dashboard import drill_down, heatmap, timeline
    from keras_gradwatch.dashboard.blocks import MANY
    from keras_gradwatch.dashboard.figures import CHARACTERS, left_of

    shown = [steps_of(run, limit) for run in runs]
    drawn = [timeline.curves(*each) for each in zip(runs, shown, strict=True)]
    data = [payload(*each) for each in zip(runs, shown, strict=True)]
    x_range = Range1d(*_all_steps(runs))
    y_ranges, layer_ranges = timeline.ranges(drawn), drill_down.y_ranges()
    recorded = {"norm", *(name for run in runs for name in _known_statistics(run))}
    left = left_of([label for each in data for label in each["labels"]])
    # One range for the rows where the networks are the same.
    rows, document, names, scripted = {}, Document(), [], []
    for i, run in enumerate(runs):
        crosshair = Span(dimension="height", line_color="#8a8a8a", line_alpha=0.7)
        shared = {"x_range": x_range, "crosshair": crosshair, "left": left}
        lines = timeline.timeline(run, drawn[i], y_ranges, shared)
        y_range = rows.setdefault(
            run.variables, heatmap.row_range(heatmap.rows(data[i]))
        )
        cells = heatmap.heatmap(data[i], y_range, shared)
        details, sources, bins = drill_down.drill_down(
            shared, layer_ranges, recorded, any(run.histograms for run in runs)
        )
        roots = {
            f"timeline_{i}": column(lines, sizing_mode="stretch_width", spacing=0),
            f"heatmap_{i}": cells["figure"],
            f"layer_{i}": column(details, sizing_mode="stretch_width", spacing=0),
        }
        for name, root in roots.items():
            root.name = name
            document.add_root(root)
        names.append(tuple(roots))
        scripted.append(
            {
                **data[i],
                "curves": drawn[i],
                "charts": lines,
                "heatmap": cells,
                "details": details,
                "sources": sources,
                "bins": bins,
            }
        )
    arguments = {
        "runs": scripted,
        "x_range": x_range,
        "layer_ranges": layer_ranges,
        "many": MANY,
        "characters": CHARACTERS,
        "palettes": colors.palettes(),
        "colors": {"zero": colors.ZERO, "not_finite": colors.NOT_FINITE},
        "color_ranges": _color_ranges(scripted),
    }
    script = CustomJS(args=arguments, code=_read("page.js"))
    document.js_on_event("document_ready", script)
    return document, names


def _all_steps(runs):
    """Returns the range of the steps of all runs, with room for a mark at its ends."""
    known = [run.steps for run in runs if len(run.steps)]
    first = float(min((steps[0] for steps in known), default=0))
    last = float(max((steps[-1] for steps in known), default=1))
    room = 0.5 + 0.01 * (last - first)
    return first - room, last + room


def _color_ranges(scripted):
    """Returns what the colors of each measure span, in log10 or as a fraction."""

    def log_range(name):
        return colors.log_range([run["measures"][name]["values"] for run in scripted])

    return {
        "norm": log_range("norm"),
        "update_ratio": log_range("update_ratio"),
        "zero_fraction": (0.0, 1.0),
        "median_ratio": (-2.0, 2.0),
    }


def _read(name):
    return (FOLDER / name).read_text(encoding="utf-8")
