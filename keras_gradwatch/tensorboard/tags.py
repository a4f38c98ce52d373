"""The names under which TensorBoard shows what was measured.

The global scalars share one prefix, so that they fill one section of the dashboard;
what exists once for each variable has a prefix of its own, which stays folded until
someone opens it.
"""

GRAD_NORM = "gradwatch/grad_norm"
GRAD_NORM_CLIPPED = "gradwatch/grad_norm_clipped"
GRAD_NORM_MAX = "gradwatch/grad_norm_max"
CLIP_FACTOR = "gradwatch/clip_factor"
CLIPPED_SHARE = "gradwatch/clipped_share"
NONFINITE_COUNT = "gradwatch/nonfinite_count"
LEARNING_RATE = "gradwatch/learning_rate"
EXPLOSIONS = "gradwatch/explosions"
LOSS = "gradwatch/loss"
HELD_SHARE = "gradwatch/held_share"
HELD_BACK = "gradwatch/held_back"
TRUST_RADIUS = "gradwatch/trust_radius"
LOSS_SCALE = "gradwatch/loss_scale"
OVERFLOWS = "gradwatch/overflows"

SCALARS = (
    GRAD_NORM,
    GRAD_NORM_CLIPPED,
    GRAD_NORM_MAX,
    CLIP_FACTOR,
    CLIPPED_SHARE,
    NONFINITE_COUNT,
    LEARNING_RATE,
    EXPLOSIONS,
    LOSS,
)

# Only where the loss is scaled.
SCALING = (LOSS_SCALE, OVERFLOWS)

# Only while updates are held.
HOLDING = (TRUST_RADIUS, HELD_SHARE, HELD_BACK)

HEATMAP = "gradwatch/heatmap"
EVENTS = "gradwatch/events"


def variable(statistic, name):
    """Tag of one statistic of one variable.

    Args:
        statistic: str, such as `"norm"`.
        name: str, the variable's name, made distinct by `names.unique`.

    Returns:
        str, `gradwatch_variables/<statistic>/<name>`.
    """
    return f"gradwatch_variables/{statistic}/{name}"


def histogram(name):
    """Tag of the histogram of one variable's gradient.

    Args:
        name: str, the variable's name, made distinct by `names.unique`.

    Returns:
        str, `gradwatch_histograms/<name>`.
    """
    return f"gradwatch_histograms/{name}"
