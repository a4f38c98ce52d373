"""Identifies which of several losses was not finite."""

import keras
import numpy as np
from keras import ops

# Losses that are distinguished.
MAX_LOSSES = 16


def trackers(model):
    """Returns `(name, keras.metrics.Mean)` of each loss; empty if there is only one."""
    found = [
        (metric.name.removesuffix("_loss"), metric)
        for metric in model.metrics
        if isinstance(metric, keras.metrics.Mean) and metric.name.endswith("_loss")
    ]
    return found[:MAX_LOSSES] if len(found) > 1 else []


def note(model, variable):
    """Notes the sums of all losses in `variable()` [MAX_LOSSES] if one is not finite.

    Call it before a skipped batch is removed from the metrics.
    """
    means = [mean for _, mean in trackers(model)]
    if not means:
        return
    sums = ops.stack([ops.cast(mean.total, "float32") for mean in means])
    noted, rest = variable(), MAX_LOSSES - len(means)
    padded = ops.concatenate([sums, ops.zeros((rest,), "float32")])
    finite = ops.all(ops.isfinite(sums))
    noted.assign(ops.where(finite, ops.copy(noted), padded))


def nonfinite(model, sums):
    """Describes which of the noted losses were not finite; None if unknown."""
    pairs = zip(trackers(model), sums.tolist(), strict=False)
    bad = [
        f"{name} ({total:g})" for (name, _), total in pairs if not np.isfinite(total)
    ]
    if not bad:
        return None
    return f"the loss of {', '.join(bad)} is not finite"
