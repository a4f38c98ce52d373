"""The heatmap layer × step; the page's script fills it for what is in view."""

import numpy as np
from bokeh.models import BoxZoomTool, ColumnDataSource, FixedTicker, PanTool, Range1d

from keras_gradwatch.dashboard.blocks import MANY
from keras_gradwatch.dashboard.colors import ACTIONS
from keras_gradwatch.dashboard.figures import chart, show_steps

# Pixels of a row, and of the whole.
ROW, LOWEST, HIGHEST = 17, 120, 620


def heatmap(data, y_range, shared):
    """Draws a run's `payload`; returns a dict of the models that the script changes."""
    made = chart(
        height(data),
        y_range=y_range,
        tools="reset,save",
        active_drag=None,
        toolbar_location="above",
        **shared,
    )
    zoom = BoxZoomTool()
    made.add_tools(zoom, PanTool())
    made.toolbar.active_drag = zoom
    cells = ColumnDataSource(
        {
            "image": [np.zeros((1, 1), "uint32")],
            "x": [0.0],
            "y": [0.0],
            "dw": [0.0],
            "dh": [0.0],
        }
    )
    # The first row is at y = 0, which the range has at the top.
    made.image_rgba("image", "x", "y", "dw", "dh", source=cells, origin="bottom_left")
    chosen = ColumnDataSource({"y": [], "height": []})
    made.hspan("y", source=chosen, color="#ff6a00", line_width=1.6)
    marks = ColumnDataSource({"x": [], "y": [], "color": []})
    made.scatter(
        "x",
        "y",
        source=marks,
        color="color",
        marker="inverted_triangle",
        size=10,
        line_color="white",
    )
    made.yaxis.ticker = FixedTicker(ticks=[])
    made.yaxis.major_label_text_font_size = "11px"
    made.yaxis.major_tick_line_color = None
    made.grid.visible = False
    show_steps(made)
    return {
        "figure": made,
        "cells": cells,
        "chosen": chosen,
        "marks": marks,
        "axis": made.yaxis[0],
        "ticker": made.yaxis[0].ticker,
        "actions": ACTIONS,
    }


def height(data):
    """Returns the pixels of the plot, without its axis."""
    return int(np.clip(30 + ROW * rows(data), LOWEST, HIGHEST))


def rows(data):
    """Returns the number of rows at first: of blocks if there are many variables."""
    count = len(data["variables"])
    return count if count <= MANY else len(data["blocks"])


def row_range(count):
    """Returns the range of `count` rows, the first at the top."""
    return Range1d(max(1, count), 0)
