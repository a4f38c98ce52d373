"""What the first batch explains: non-finite values, ranges, scales, labels."""

import math
import statistics

from keras_gradwatch.reports.diagnosis.finding import Finding
from keras_gradwatch.reports.diagnosis.settings import contradictions

# Root mean square from which inputs or targets are called large.
LARGE = 5.0
# Smallest batch, in rows, that is representative of the data.
FEWEST_ROWS = 32
# A loss that is this many times that of answering 0 is far above it.
FAR_ABOVE = 3.0
# Equal targets are reported if the latest losses are below this fraction of the first
# one (of classes, of other targets), and none of at least `MANY` losses is above
# `ALIKE` times their median: a rare class would stand out.
FORESEEN_CLASS, FORESEEN, ALIKE, MANY = 0.1, 0.02, 10.0, 50
# Classes that are numbered, at most.
MANY_CLASSES = 100
# Fraction of the sum of squares that is nearly all.
MOST = 0.9
# Targets may be outside an activation's range by this fraction of their own range.
SLACK = 0.05
# How far a probability may be outside of 0 to 1 by rounding.
ROUNDING = 1e-3
# The values that an activation can give.
RANGES = {
    "sigmoid": (0.0, 1.0),
    "softmax": (0.0, 1.0),
    "hard_sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, float("inf")),
    "softplus": (0.0, float("inf")),
    "exponential": (0.0, float("inf")),
}


def bad_data(summary):
    """Finds data that no model can learn from, or that the last layer cannot give."""
    data, found = summary.data, []
    if summary.first_bad:  # a layer or a loss may handle them
        found += [_nonfinite("inputs", a) for a in data["inputs"]]
        found += [_nonfinite("targets", a) for a in data["targets"]]
    rules = [_labels, _zeros, _class_numbers, _sequences]
    if not data.get("weighted"):  # a weight of 0 may mark what is to be ignored
        rules += [_probabilities, _out_of_range]
    accuracy = "accuracy" in summary.model.get("metrics", [])
    for head, array in _pairs(summary):
        head = {**head, "accuracy": accuracy}
        found += [f for rule in rules if (f := rule(head, array))][:1]
    found.append(_single_rows(summary))
    found.append(_equal_inputs(summary))
    return [f for f in found if f]


def _pairs(summary):
    """Pairs each output with its targets, by name if the targets have names."""
    heads, targets = summary.model.get("heads", []), summary.data["targets"]
    if len(heads) != len(targets):
        return []
    if not any(array["name"] for array in targets):
        return list(zip(heads, targets, strict=True))
    by_name = {array["name"]: array for array in targets}
    known = [(head, by_name.get(head.get("output"))) for head in heads]
    return [pair for pair in known if pair[1] is not None]


def _single_rows(summary):
    """Finds batches of one row under batch normalization, or returns None."""
    name, inputs = summary.model.get("normalizes_batch"), summary.data["inputs"]
    if name is None or not inputs or any(array["rows"] != 1 for array in inputs):
        return None
    return Finding(
        "data",
        f"a batch has one row, so `{name}` subtracts that row from itself, and its "
        "output does not depend on the inputs",
        "Use batches of 16 rows or more, or `LayerNormalization`.",
        f"`{name}` normalizes batches of one row",
    )


def _equal_inputs(summary):
    """Finds equal inputs with different targets, or returns None."""
    pairs, finding = _pairs(summary), constant_inputs(summary)
    known = finding and all(
        head["family"] and array["rows"] >= FEWEST_ROWS for head, array in pairs
    )
    differ = any(array["distinct"] > 1 for _, array in pairs)
    return finding if known and differ else None


def _sequences(head, array):
    """Finds label sequences that are too long for a CTC loss, or returns None."""
    steps = head.get("steps")
    fits = not steps or array.get("frames", 0) <= steps
    if (head["loss"] or "").lower() != "ctc" or fits:
        return None
    return Finding(
        "labels",
        f"a label sequence of the first batch needs {array['frames']} output steps "
        "(its length plus one for each pair of equal neighbors), and "
        f"`{head['layer']}` has {steps}: its CTC loss is infinite",
        "Reduce strides and pooling along the time axis, or shorten the labels.",
        "a label sequence is longer than the outputs",
    )


def certain(summary):
    """Finds what is wrong in any run: bad data, and contradictory settings."""
    return [*bad_data(summary), *contradictions(summary)]


def large_inputs(summary):
    """Finds inputs that are not scaled, or returns None."""
    if summary.model.get("scales_inputs"):
        return None
    inputs = summary.data["inputs"]
    large = [a for a in inputs if a["shape"] and a["rms"] > LARGE]
    if not large:
        return None
    worst = max(large, key=lambda array: array["rms"])
    return Finding(
        "inputs",
        f"the inputs{_named(worst)} are large: {worst['low']:.3g} to "
        f"{worst['high']:.3g} in the first batch, a root mean square of "
        f"{worst['rms']:.2g}{_mostly(worst)}",
        scale_inputs(worst["rms"]),
        f"the inputs are large ({worst['low']:.3g} to {worst['high']:.3g})",
    )


def _mostly(array):
    """Names the column that most of the size comes from, or returns ""."""
    number, size = array.get("column", (0, 0.0))
    count = math.prod(array["shape"])
    if count < 2 or size**2 < MOST * count * array["rms"] ** 2:
        return ""
    return f", nearly all of it from column {number}"


def large_targets(summary):
    """Finds targets of a regression that are not scaled, or returns None."""
    for head, array in _pairs(summary):
        if head["family"] == "regression" and array["rms"] > LARGE:
            return Finding(
                "targets",
                f"the targets{_named(array)} are large: {array['low']:.3g} to "
                f"{array['high']:.3g} in the first batch",
                scale_targets(array["rms"], array["deviation"]),
                f"the targets are large ({array['low']:.3g} to {array['high']:.3g})",
            )
    return None


def scale_inputs(size):
    """Returns the advice for inputs of this root mean square."""
    return (
        "Scale the inputs to about unit scale: put a `keras.layers.Normalization` "
        f"layer first and `adapt` it to the training data, or divide by {size:.2g}."
    )


def scale_targets(size, deviation=None):
    """Returns the advice for targets of this root mean square and this deviation."""
    how = f"divide by about {size:.2g}"
    if deviation:
        how = f"subtract their mean, divide by their deviation of about {deviation:.2g}"
    return (
        f"Scale the targets to about unit scale ({how}), and undo it on the "
        "predictions."
    )


def guessing(summary):
    """Returns the loss of a constant prediction, None if unknown.

    As `constant_answer`, but the estimate for a squared error is not used where the
    losses contradict it, or where a later `fit` may have other targets.
    """
    constant = constant_answer(summary)
    if constant is None or summary.model["heads"][0]["family"] != "regression":
        return constant
    if summary.fits > 1:
        return None
    early, recent = summary.losses()
    array = summary.model["data"]["targets"][0]
    fits = constant > early / 100 and recent > early / 2
    # Nor is a first batch like all others, where targets have a trend.
    return constant if fits or recent > FAR_ABOVE * array["rms"] ** 2 else None


def constant_answer(summary):
    """Returns the loss of the best constant prediction, None if unknown."""
    if summary.model.get("penalized"):
        return None  # the loss has further terms
    return loss_of_guessing(summary)


def loss_of_guessing(summary):
    """Returns `constant_answer` without the terms of regularizers.

    That of guessing among all classes for a crossentropy. For a squared error, the
    variance of the targets in the first batch, of `FEWEST_ROWS` rows or more.
    """
    data = summary.data
    heads, targets = summary.model.get("heads", []), data["targets"]
    if len(heads) != 1 or len(targets) != 1 or data.get("weighted"):
        return None
    (head,), (array,) = heads, targets
    if "focal" in (head["loss"] or "").lower():
        return None  # it depends on the loss's gamma and alpha
    if head["family"] == "binary":
        return math.log(2)
    if head["family"] == "classes":
        return math.log(head["units"]) if (head["units"] or 0) > 1 else None
    name = (head["loss"] or "").lower().replace("_", "")
    if name not in ("mse", "meansquarederror") or not summary.early:
        return None
    return array["deviation"] ** 2 if array.get("rows", 0) >= FEWEST_ROWS else None


def uncertainty(summary):
    """Returns two standard errors of `guessing`, 0 if not estimated from targets."""
    (head,) = summary.model["heads"]
    if head["family"] != "regression":
        return 0.0
    return 2 * summary.model["data"]["targets"][0].get("variance_error", 0.0)


def has_soft_targets(summary):
    """Returns whether crossentropy targets are soft: its minimum is above 0."""
    crossentropy = ("binary", "classes")
    return any(
        head["family"] in crossentropy and not array["integers"]
        for head, array in _pairs(summary)
    )


def constant_inputs(summary):
    """Finds inputs that are all equal in the first batch, or returns None."""
    inputs = summary.data["inputs"]
    if not inputs or not all(array["constant"] for array in inputs):
        return None
    return Finding(
        "data",
        f"all inputs of the first batch are {inputs[0]['low']:g}",
        "Check how the inputs are made: they are all equal.",
        "all inputs are equal",
    )


def constant_targets(summary):
    """Finds equal targets that the model has learned, or returns None."""
    targets, recent = summary.data["targets"], summary.recent
    if len(targets) != 1 or not targets[0]["constant"] or not recent:
        return None
    (array,) = targets
    heads = summary.model.get("heads", [])
    family = heads[0]["family"] if len(heads) == 1 else None
    of_class = family in ("binary", "classes")
    if not of_class and array["low"] == 0:
        return None  # targets that a loss of the user's own does not read
    least = (FORESEEN_CLASS if of_class else FORESEEN) * summary.first_loss()
    level, largest = statistics.median(recent), max(recent)
    small, alike = 0 <= level < least, largest <= max(ALIKE * level, 0.01 * least)
    if array.get("rows", 0) < FEWEST_ROWS or len(recent) < MANY:
        return None
    if not (small and alike) or any(k.endswith("spike") for k in summary.kinds):
        return None
    return Finding(
        "data",
        f"all targets of the first batch are {array['low']:g}, and no later batch has "
        f"a loss above {max(recent):.2g}: all targets seem to be equal",
        "Check how the targets are made: they are all equal.",
        "all targets are equal",
    )


def doubtful_data(summary):
    """Finds data that are unusual for the loss, and explain a lack of learning."""
    found = [f for f in [constant_inputs(summary)] if f]
    for head, array in _pairs(summary):
        binary = array["integers"] and {array["low"], array["high"]} == {0.0, 1.0}
        binary = binary and head["units"] == 1
        if head["family"] == "regression" and (array["one_hot"] or binary):
            kind = "Categorical" if array["one_hot"] else "Binary"
            found.append(
                Finding(
                    "settings",
                    f"the targets{_named(array)} are classes, and {head['loss']} is a "
                    "loss for regression",
                    f"Compile with `loss=keras.losses.{kind}Crossentropy("
                    "from_logits=True)`, and no activation in the last layer.",
                    f"{head['loss']} is not a classification loss",
                )
            )
    return found


def _nonfinite(what, array):
    if not array["nonfinite"]:
        return None
    columns, share = array["bad_columns"], array["nonfinite"]
    if columns:
        listed = ", ".join(map(str, columns))
        subject, verb = ("columns", "are") if len(columns) > 1 else ("column", "is")
        words = f"{subject} {listed} of the {what}{_named(array)} {verb} NaN or "
        words += "infinite in every row of the first batch"
    else:
        words = f"{share:.2%} of the values of the {what}{_named(array)} in the first "
        words += "batch are not finite"
    return Finding(
        "data",
        words,
        f"Remove or fill these values (`np.nan_to_num`, or leave the rows out): they "
        f"are in the {what} passed to `fit`.",
        words,
    )


def _labels(head, array):
    """Finds class indices that the last layer has no unit for."""
    sparse = head["family"] == "classes" and "sparse" in head["loss"].lower()
    if not sparse or not head["units"] or head.get("ignores") is not None:
        return None
    if array["integers"] and array["low"] >= 0 and array["high"] < head["units"]:
        return None
    return Finding(
        "labels",
        f"the labels{_named(array)} are from {array['low']:g} to {array['high']:g}, "
        f"but the last layer `{head['layer']}` has {head['units']} units, for the "
        f"classes 0 to {head['units'] - 1}",
        f"Number the classes from 0, and give `{head['layer']}` as many units as there "
        "are classes.",
        "some labels are outside the range of the last layer",
    )


def _probabilities(head, array):
    """Finds targets of a crossentropy that are no probabilities."""
    sparse = "sparse" in (head["loss"] or "").lower()
    if head["family"] not in ("binary", "classes") or sparse:
        return None
    if array["low"] >= -ROUNDING and array["high"] <= 1 + ROUNDING:
        return None
    advice = (
        "Encode the labels as 0 and 1 (several classes: one column each, or a sparse "
        "crossentropy)."
    )
    if not array["integers"]:
        advice = 'Scale the targets to 0 to 1, or compile with `loss="mse"`.'
    return Finding(
        "labels",
        f"the targets{_named(array)} are from {array['low']:g} to {array['high']:g}, "
        f"but the loss {head['loss']} expects values from 0 to 1",
        advice,
        f"the targets do not fit the loss {head['loss']}",
    )


def _class_numbers(head, array):
    """Finds class indices under a regression loss, where accuracy is a metric."""
    classes = array["integers"] and 2 < array.get("distinct", 0) <= MANY_CLASSES
    within = array["low"] >= 0 and array["high"] < MANY_CLASSES
    if head["family"] != "regression" or not head["accuracy"] or head["units"] != 1:
        return None
    if not classes or not within:
        return None
    units = int(array["high"]) + 1
    return Finding(
        "settings",
        f"the targets{_named(array)} are class indices up to {array['high']:g} "
        f"(the metric is accuracy), but {head['loss']} is a loss for regression",
        "Compile with `loss=keras.losses.SparseCategoricalCrossentropy("
        f"from_logits=True)`, and no activation in the last layer; give "
        f"`{head['layer']}` {units} units, one for each class.",
        f"{head['loss']} is not a classification loss",
    )


def _zeros(head, array):
    """Finds targets of 0 under a loss that divides by them."""
    if head["family"] != "percentage" or not array["zeros"]:
        return None
    return Finding(
        "settings",
        f"{array['zeros']:.0%} of the targets{_named(array)} are 0, and the loss "
        f"{head['loss']} divides by them",
        'Compile with `loss="mean_absolute_error"`, or leave these rows out.',
        f"targets are 0, and {head['loss']} divides by them",
    )


def _out_of_range(head, array):
    """Finds targets that the last activation cannot give."""
    if head["family"] not in ("regression", "percentage", "logarithm"):
        return None
    negative = head["family"] == "logarithm" and array["low"] < 0
    low, high = RANGES.get(head["activation"], (-float("inf"), float("inf")))
    slack = SLACK * (array["high"] - array["low"])
    within = low - slack <= array["low"] and array["high"] <= high + slack
    if within and not negative:
        return None
    if negative:
        what = f"the loss {head['loss']} expects values of at least 0"
        advice = 'Compile with a loss that takes negative targets, such as `"mse"`.'
    else:
        what = f"the activation {head['activation']} of the last layer "
        limits = (
            f"from {low:g} to {high:g}"
            if math.isfinite(high)
            else f"of {low:g} or more"
        )
        what += f"`{head['layer']}` gives values {limits}"
        advice = f"Remove the activation of `{head['layer']}`, or scale the targets."
    return Finding(
        "settings",
        f"the targets{_named(array)} are from {array['low']:.3g} to "
        f"{array['high']:.3g}, but {what}",
        advice,
        "the last layer cannot produce these targets"
        if not negative
        else f"some targets are negative, but {head['loss']} accepts no negative ones",
    )


def _named(array):
    return f" `{array['name']}`" if array["name"] else ""
