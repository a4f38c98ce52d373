"""What all charts of the page share."""

from bokeh.models import CrosshairTool, WheelZoomTool
from bokeh.plotting import figure

# Characters of a label, at most, and the pixels of each and of what stands beside it.
CHARACTERS, CHARACTER, BESIDE = 34, 6.2, 26
LEAST = 110


def left_of(labels):
    """Returns the pixels that the names of the layers need left of every chart."""
    longest = max(map(len, labels), default=0)
    return max(LEAST, int(BESIDE + CHARACTER * min(CHARACTERS, longest)))


def chart(height, x_range, crosshair, left, **options):
    """Creates a figure with the steps as x axis, on which dragging zooms.

    The `crosshair`, a `Span`, and `left`, in pixels, are those of all charts of a run.
    """
    options = {
        "tools": "xbox_zoom,xpan,reset,save",
        "active_drag": "xbox_zoom",
        "toolbar_location": None,
        **options,
    }
    made = figure(
        x_range=x_range,
        height=height,
        sizing_mode="stretch_width",
        min_border_left=left,
        min_border_right=12,
        min_border_top=4,
        min_border_bottom=4,
        border_line_color=None,
        **options,
    )
    wheel = WheelZoomTool(dimensions="width", modifiers={"shift": True})
    made.add_tools(wheel, CrosshairTool(overlay=crosshair))
    made.toolbar.active_scroll = wheel
    made.toolbar.logo = None
    made.xaxis.visible = False
    made.xgrid.visible = False
    if options.get("y_axis_type") == "log":
        made.yaxis.ticker.desired_num_ticks = 3  # more overlap within one decade
    made.yaxis.axis_label_text_font_style = "normal"
    made.yaxis.axis_label_text_font_size = "12px"
    return made


def show_steps(made):
    """Shows the step axis below the lowest chart of a column."""
    made.xaxis.visible = True
    made.xaxis.axis_label = "step"
    made.xaxis.axis_label_text_font_style = "normal"
    made.xaxis.formatter.use_scientific = False
    made.height += 36


def show_legend(made):
    """Shows the legend of a chart in one line at its upper right."""
    made.legend.visible = True
    made.legend.location = "top_right"
    made.legend.orientation = "horizontal"
    made.legend.padding, made.legend.margin = 2, 2
    made.legend.label_text_font_size = "10px"
    made.legend.background_fill_alpha = 0.6
    made.legend.border_line_alpha = 0
    made.legend.glyph_height = 10
