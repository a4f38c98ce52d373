"""The names under which TensorBoard shows what was measured.

TensorBoard puts tags with the same first folder into one section, and sorts sections by
name. The global scalars fill the first one; each layer has one of its own, which stays
folded until someone opens it, the largest layer first.
"""

GRAD_NORM = "gradwatch/grad_norm"
GRAD_NORM_CLIPPED = "gradwatch/grad_norm_clipped"
GRAD_NORM_MAX = "gradwatch/grad_norm_max"
# log10, beside the norms themselves: TensorBoard's axes are linear.
GRAD_NORM_LOG10 = "gradwatch/grad_norm_log10"
GRAD_NORM_CLIPPED_LOG10 = "gradwatch/grad_norm_clipped_log10"
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
    GRAD_NORM_LOG10,
    GRAD_NORM_CLIPPED_LOG10,
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
REPORT = "gradwatch/report"


def layer_of(name):
    """The layer of a variable, from its path."""
    layer, _, leaf = name.rpartition("/")
    return layer or leaf


def sections(variables, sizes, known=()):
    """The sections of layers, the largest layer first.

    Args:
        variables: V names of variables, made distinct by `names.unique`.
        sizes: V numbers of elements.
        known: Dict that an earlier call returned; its sections stay, others follow.

    Returns:
        Dict of each layer to its section, `gradwatch_layer_<rank>_<layer>`.
    """
    found = dict(known)
    elements = {}
    for name, size in zip(variables, sizes, strict=True):
        layer = layer_of(name)
        elements[layer] = elements.get(layer, 0) + size
    for layer in sorted(elements, key=elements.get, reverse=True):
        if layer not in found:
            title = layer.replace("/", ".")
            found[layer] = f"gradwatch_layer_{len(found) + 1:02d}_{title}"
    return found


def variable(sections, name, statistic):
    """Tag of one statistic of one variable.

    Args:
        sections: What `sections` returned.
        name: str, the variable's name, made distinct by `names.unique`.
        statistic: str, such as `"norm"`; `"gradient"` is the histogram.

    Returns:
        str, `<section>/<variable>/<statistic>`.
    """
    return f"{sections[layer_of(name)]}/{name.rpartition('/')[2]}/{statistic}"
