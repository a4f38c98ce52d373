"""Steps that are not finite: what came before them, and where they broke."""

import math

from keras_gradwatch.reports.diagnosis.finding import Finding

# A norm that is this many times the usual one has grown.
GROWN = 10.0
# Values whose square, or sum over a batch, float16 cannot hold.
HALF_RANGE = 1e3
# Fraction of the steps up to which bad ones are single ones.
FEW = 0.2
# What helps where an operation of `keras.ops` is the first that is not finite.
_DIVIDE = "Keep the divisor of {} away from 0, such as by `x / (y + 1e-7)`."
KEEP = {
    "log": "Keep the argument of {} positive: `ops.log(ops.maximum(x, 1e-7))`.",
    "sqrt": "Keep the argument of {} positive: `ops.sqrt(ops.maximum(x, 1e-12))`.",
    "rsqrt": "Keep the argument of {} positive: `ops.rsqrt(ops.maximum(x, 1e-12))`.",
    "exp": "Keep the argument of {} small: `ops.exp(ops.minimum(x, 50))`.",
    "divide": _DIVIDE,
    "true_divide": _DIVIDE,
    "power": "Keep the base of {} positive: `ops.power(ops.maximum(x, 1e-7), y)`.",
}


def rare(summary):
    """Returns whether steps that are not finite are few, among finite ones."""
    bad, count = summary.first_bad, summary.outcomes["nonfinite"]
    if not bad or count == summary.steps:
        return False
    if count > max(FEW * summary.steps, 1) and not _are_mixed(summary, count):
        return False
    before, usual = bad["before"], summary.quantile(0.5)
    return before is None or usual is None or before < 100 * usual


def _are_mixed(summary, count):
    """Returns whether at least half of the steps between the bad ones are finite."""
    events = summary.kinds.get("nonfinite")
    if events is None:
        return False
    begin, end = events["first"]["step"], events["last"]["step"]
    return count <= (end + 1 - begin) / 2


def grew(summary):
    """Returns whether gradients or updates had grown before the first bad step."""
    bad = summary.first_bad
    if not bad:
        return False
    spikes = [k for k in summary.kinds if k in ("norm spike", "loss spike", "update")]
    if any(summary.kinds[k]["first"]["step"] <= bad["step"] for k in spikes):
        return True
    before, first = bad["before"], summary.norm.get("first")
    return bool(before and first and before > GROWN * first)


def of_inputs(summary):
    """Returns whether inputs are to blame: the first kernel is bad, its bias is not."""
    bad = summary.first_bad.get("variables", [])
    if len(bad) != 1 or not bad[0].endswith("kernel"):
        return False
    shapes = summary.model.get("shapes", {})
    kernels = [name for name, shape in shapes.items() if len(shape) >= 2]
    has_bias = bad[0].removesuffix("kernel") + "bias" in shapes
    return has_bias and kernels[:1] == [bad[0]]


def undefined_derivative(summary):
    """Finds a finite loss whose gradients are suddenly not finite, or returns None."""
    bad = summary.first_bad
    if not bad or not math.isfinite(bad["loss"]) or not bad["variables"]:
        return None
    if grew(summary) or of_inputs(summary) or bad["scale"] > 0:
        return None
    seen = bad["step"] == summary.first_step
    if seen and any(array["nonfinite"] for array in summary.data["inputs"]):
        return None  # what comes in is not finite
    where = place(summary)
    comma = "," if "," in where else ""
    return Finding(
        "undefined derivative",
        f"the loss of step {bad['step']} is finite but its gradients are not: a "
        f"derivative is infinite{where}",
        f"Look{where or ' in the model'}{comma} for a square root, a norm, a logarithm "
        "or a division whose argument is 0: its derivative is infinite. Add a small "
        "constant inside (`ops.sqrt(x + 1e-12)`).",
        "Non-finite gradients although the loss is finite, first in step "
        f"{bad['step']}{f'; look{where}' if where else ''}",
    )


def overflow(summary):
    """Finds an overflow of float16 that the loss scale does not explain."""
    bad = summary.first_bad
    if bad and _overflows(summary):
        return Finding(
            "float16 overflow",
            f"the model computes in float16, whose largest number is 65504, and step "
            f"{bad['step']} has non-finite values",
            'Compute in float32 (`keras.config.set_dtype_policy("float32")`), or use '
            "`mixed_float16` with the last layer in float32 and targets of unit scale.",
            f"Values overflow float16 in step {bad['step']}",
        )
    if not bad or not bad["scale"] > 0 or not math.isfinite(bad["loss"]):
        return None
    return Finding(
        "float16 overflow",
        f"gradients overflow float16 in step {bad['step']}, at a loss scale of "
        f"{bad['scale']:.3g}",
        "Compute the last layer and the loss in float32 "
        '(`Dense(..., dtype="float32")`).',
        "Gradients overflow float16",
    )


def _overflows(summary):
    """Returns whether values near the end of float16's range explain the bad step."""
    if summary.model.get("dtype") != "float16" or summary.first_bad["scale"] > 0:
        return False
    arrays = [*summary.data["inputs"], *summary.data["targets"]]
    if any(array["nonfinite"] for array in arrays):
        return False
    large = any(max(-a["low"], a["high"]) > HALF_RANGE for a in arrays)
    return large or any(loss > HALF_RANGE for loss in summary.early[:1])


def forward(summary):
    """Returns `(words, advice)` on where the forward pass broke; empty if unknown."""
    found = summary.first_bad.get("forward") or {}
    if not found:
        return "", ""
    advice = ""
    if found["kind"] == "input" and summary.first_bad["step"] != summary.first_step:
        advice = (
            f"Remove the rows of {found['place']} that are not finite, or fill these "
            "values (`np.nan_to_num`)."
        )
    elif found["kind"] == "operation":
        # A second one in a functional model is `log_1`.
        advice = KEEP.get(found["name"].rstrip("_0123456789"), "")
        advice = advice.format(found["place"])
    if not advice and found["kind"] != "input":
        advice = (
            f"Check {found['place']} for a division by 0, a logarithm of 0 or a large "
            "power, and keep the arguments away from 0 (`x / (y + 1e-7)`)."
        )
    step = summary.first_bad["step"]
    return f"; in the forward pass of step {step}, {found['words']}", advice


def sudden(summary):
    """Finds a loss that is not finite from some step on, without growth before."""
    bad = summary.first_bad
    if not bad or math.isfinite(bad["loss"]) or rare(summary) or grew(summary):
        return None
    if bad["step"] == summary.first_step:
        return None  # named as that
    words, advice = forward(summary)
    return Finding(
        "sudden non-finite loss",
        f"the loss is not finite from step {bad['step']} on, although the "
        f"gradient norm was normal before{words}",
        advice
        or "Check the batch of that step, and keep the arguments of logarithms and "
        "divisions positive.",
        f"The loss is not finite from step {bad['step']} on, without growth before it",
    )


def place(summary):
    """Says where the gradients stop being finite; empty if unknown.

    Everything before the place that broke is not finite, everything after it is.
    """
    bad = set(summary.first_bad.get("variables", []))
    order = summary.model.get("order", [])
    hit = [i for i, (_, variables) in enumerate(order) if bad & set(variables)]
    if not hit:
        return ""
    after = order[hit[-1] + 1 :]
    between = []
    for name, variables in after:
        if variables:
            break
        between.append(name)
    if between:
        return f" in layer `{'`, `'.join(between)}`, or in the one before it"
    if after:
        return f" in layer `{order[hit[-1]][0]}` or `{after[0][0]}`"
    return f" in the loss, or in the last layer `{order[hit[-1]][0]}`"
