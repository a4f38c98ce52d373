"""Histograms of the gradients, counted on the device at sampled steps."""

import numpy as np
from keras import ops

from keras_gradwatch.statistics.measure import elements
from keras_gradwatch.tensors.branch import cond
from keras_gradwatch.tensors.reductions import largest

BINS = 30


def histogram(gradient):
    """Counts the finite values of one gradient, of sparse ones the stored rows.

    Returns float32 [BINS + 2]: counts in equal bins, then the lower and the upper edge.
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


def sample(state, names, gradients):
    """Stores the histograms of the P gradients if they are due in this step."""
    monitor = state.monitor
    monitor.histogram_names = tuple(names)
    every = ops.cast(state.control["histogram_every"], "int32")
    kept, when = monitor.histogram_variables(len(names))
    due = (every > 0) & ops.equal(ops.mod(state.number, ops.maximum(every, 1)), 0)
    counts = cond(
        due,
        lambda: ops.stack([histogram(g) for g in gradients]),
        lambda: ops.convert_to_tensor(kept),
    )
    kept.assign(counts)
    when.assign(ops.where(due, state.number, ops.convert_to_tensor(when)))


def edges_of(values):
    """Returns the bin edges [V, BINS + 1] of V histograms [V, BINS + 2], in NumPy."""
    values = values.astype("float64")  # the range may exceed float32
    low, high = values[:, -2:-1], values[:, -1:]
    return low + (high - low) * np.linspace(0, 1, BINS + 1)[None]
