"""The charts of the custom-scalars dashboard, which group related scalars."""

import re

from tensorboard.plugins.custom_scalar import layout_pb2

from keras_gradwatch.tensorboard import tags

_CHARTS = (
    (
        "log10 of the gradient norm before and after clipping",
        tags.GRAD_NORM_LOG10,
        tags.GRAD_NORM_CLIPPED_LOG10,
    ),
    ("loss", tags.LOSS),
    ("explosions and non-finite values", tags.EXPLOSIONS, tags.NONFINITE_COUNT),
    ("learning rate", tags.LEARNING_RATE),
    (
        "limited updates: fraction of steps, fraction cut off",
        tags.HELD_SHARE,
        tags.HELD_BACK,
    ),
    (
        "gradient norm before and after clipping, and its maximum",
        tags.GRAD_NORM,
        tags.GRAD_NORM_CLIPPED,
        tags.GRAD_NORM_MAX,
    ),
    ("clip factor and fraction of clipped steps", tags.CLIP_FACTOR, tags.CLIPPED_SHARE),
)


def scalars_layout():
    """Builds the `layout_pb2.Layout` of seven charts for `EventWriter.layout`."""
    charts = [
        layout_pb2.Chart(
            title=title,
            # Tags are regular expressions that TensorBoard matches from the start only:
            # unanchored, `grad_norm` would draw `grad_norm_clipped` as well.
            multiline=layout_pb2.MultilineChartContent(
                tag=[f"^{re.escape(tag)}$" for tag in chart_tags]
            ),
        )
        for title, *chart_tags in _CHARTS
    ]
    return layout_pb2.Layout(
        category=[layout_pb2.Category(title="keras_gradwatch", chart=charts)]
    )
