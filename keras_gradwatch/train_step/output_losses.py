"""Which of several losses was not finite."""

import keras
import numpy as np
from keras import ops

# Losses that are distinguished.
MAX_LOSSES = 16


def trackers(model):
    """The means of the single losses of a model with several outputs.

    Args:
        model: A Keras trainer.

    Returns:
        List of pairs: the name of the loss, and its `keras.metrics.Mean`; empty where
        there is only one loss.
    """
    found = [
        (metric.name.removesuffix("_loss"), metric)
        for metric in model.metrics
        if isinstance(metric, keras.metrics.Mean) and metric.name.endswith("_loss")
    ]
    return found[:MAX_LOSSES] if len(found) > 1 else []


def note(model, variable):
    """Notes the sums of all losses, where one of them is not finite.

    Args:
        model: The model, before a skipped batch is taken out of its metrics.
        variable: Function of nothing that returns a variable [MAX_LOSSES].
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
    """Describes which losses were not finite.

    Args:
        model: The model.
        sums: What `note` has noted, array [MAX_LOSSES].

    Returns:
        Clause, or None where nothing is known.
    """
    pairs = zip(trackers(model), sums.tolist(), strict=False)
    bad = [
        f"{name} ({total:g})" for (name, _), total in pairs if not np.isfinite(total)
    ]
    if not bad:
        return None
    return f"the loss of {', '.join(bad)} is not finite"
