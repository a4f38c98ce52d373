"""The tags under which TensorBoard shows the measurements.

TensorBoard sorts sections, the first folders of tags, by name. The global scalars come
first, then a section per layer, largest first, which stays collapsed until opened.
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
    """Returns the layer of a variable, from the variable's path."""
    layer, _, leaf = name.rpartition("/")
    return layer or leaf


def sections(variables, sizes, known=()):
    """Returns a dict of layer to section, `gradwatch_layer_<rank>_<layer>`.

    Layers are ranked by size, after those in `known`, the result of an earlier call.
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
    """Returns the tag of one statistic, `<section>/<variable>/<statistic>`."""
    return f"{sections[layer_of(name)]}/{name.rpartition('/')[2]}/{statistic}"
