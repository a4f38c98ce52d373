"""Histograms of the gradients, counted on the device at sampled steps."""

from keras import ops

from keras_gradwatch.backends.branch import cond
from keras_gradwatch.backends.reductions import largest
from keras_gradwatch.train_step.statistics import elements

BINS = 30


def histogram(gradient):
    """Counts the finite values of one gradient in equal bins.

    Args:
        gradient: Tensor or `SparseRows`; of the latter the stored rows are counted.

    Returns:
        Tensor [BINS + 2], float32: the counts, then the lower and the upper edge.
        Values that are not finite are left out.
    """
    values = ops.reshape(elements(gradient)[0], (-1,))
    finite = ops.isfinite(values)
    values = ops.where(finite, values, 0.0)
    low, high = -largest(-values), largest(values)
    width = ops.where(high > low, high - low, 1.0)
    place = ops.cast(ops.floor((values - low) / width * BINS), "int32")
    place = ops.clip(place, 0, BINS - 1)
    counts = ops.segment_sum(ops.cast(finite, "float32"), place, num_segments=BINS)
    return ops.concatenate([counts, ops.stack([low, low + width])])


def sample(step, names, gradients):
    """The assignments that keep the histograms of a step that is due.

    Args:
        step: The `Step` that is traced.
        names: Names of the P variables.
        gradients: List of their P gradients.

    Returns:
        List of `(variable, new value)`.
    """
    monitor = step.monitor
    monitor.histogram_names = tuple(names)
    freq = ops.cast(step.knobs["histogram_freq"], "int32")
    kept = monitor.variable("histograms", [[0.0] * (BINS + 2)] * len(gradients))
    when = monitor.variable("histogram_step", -1, "int32")
    due = (freq > 0) & ops.equal(ops.mod(step.number, ops.maximum(freq, 1)), 0)
    counts = cond(
        due,
        lambda: ops.stack([histogram(g) for g in gradients]),
        lambda: ops.convert_to_tensor(kept),
    )
    last = ops.where(due, step.number, ops.convert_to_tensor(when))
    return [(kept, counts), (when, last)]
