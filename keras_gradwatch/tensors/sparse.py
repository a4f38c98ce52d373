"""TensorFlow's sparse gradients: `IndexedSlices` to `SparseRows` and back.

On the other backends, all gradients are dense and pass through unchanged.
"""

import math
from typing import NamedTuple

from keras import ops


class SparseRows(NamedTuple):
    """A gradient with few nonzero rows, such as that of an embedding.

    Attributes:
        rows: Tensor [n, ...], each row of the gradient once (all-zero rows allowed).
        size: Number of elements of the whole gradient, zero rows included.
    """

    rows: object
    size: int


def is_sparse(gradient):
    """Returns whether a gradient is a `tf.IndexedSlices`."""
    return hasattr(gradient, "dense_shape")


def dense(gradient):
    """Converts a gradient to a dense tensor."""
    if is_sparse(gradient):
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def unique_rows(gradient):
    """Sums the rows of an `IndexedSlices` that have the same index.

    XLA needs to know the shape, so rows left over stay, as zeros with index 0. The
    dense table is never materialized.
    """
    if not is_sparse(gradient):
        return gradient
    import tensorflow as tf

    order = tf.argsort(gradient.indices)
    indices = tf.gather(gradient.indices, order)
    values = tf.gather(gradient.values, order)
    starts = tf.concat([[True], indices[1:] != indices[:-1]], 0)[: tf.size(indices)]
    segments = tf.cumsum(tf.cast(starts, tf.int32)) - 1
    count = tf.size(indices)
    rows = tf.math.unsorted_segment_sum(values, segments, count)
    # Free segments get the largest of an empty set, that is the type's minimum.
    places = tf.math.unsorted_segment_max(indices, segments, count)
    places = tf.maximum(places, 0)
    return tf.IndexedSlices(rows, places, gradient.dense_shape)


def rows(gradient, local, shape):
    """Converts a gradient to `SparseRows` if `local` was sparse.

    `local` is this replica's gradient before the sum over replicas, and `gradient` that
    sum, which may be dense; `shape` is that of the variable.
    """
    if not is_sparse(local):
        return gradient
    values = gradient.values if is_sparse(gradient) else gradient
    return SparseRows(values, math.prod(shape))


def map_values(function, gradient):
    """Applies `function` to the values of a gradient, dense or sparse."""
    if isinstance(gradient, SparseRows):
        return gradient._replace(rows=function(gradient.rows))
    if is_sparse(gradient):
        return _with_values(gradient, function(gradient.values))
    return function(gradient)


def like(new, gradient, dtype, scale, count):
    """Prepares a policy's gradient `new` for `apply` in each replica.

    `gradient`, the original, has the indices of the rows. `apply` divides by `scale`,
    unless that is None, and sums over `count` replicas.
    """

    def ready(values):
        if scale is not None:
            values = ops.cast(values, "float32") * scale
        return ops.cast(values / count if count > 1 else values, dtype)

    values = ready(new.rows if isinstance(new, SparseRows) else new)
    if is_sparse(gradient):
        return _with_values(gradient, values)
    return values


def inner(gradients, packed, matrices):
    """Returns Σ gᵢ·tᵢ over V gradients and V dense tensors, a scalar float32.

    Sparse gradients have unique rows; `matrices` are the tensors joined by `packed`.
    """
    if any(map(is_sparse, gradients)):
        pairs = zip(gradients, packed.split(matrices), strict=True)
        return sum(_inner(gradient, tensor) for gradient, tensor in pairs)
    pairs = zip(packed.join(gradients), matrices, strict=True)
    return sum(ops.sum(gradient * matrix) for gradient, matrix in pairs)


def _inner(gradient, tensor):
    if is_sparse(gradient):
        tensor = ops.take(tensor, gradient.indices, axis=0)
        gradient = gradient.values
    return ops.sum(ops.cast(gradient, "float32") * tensor)


def _with_values(gradient, values):
    return type(gradient)(values, gradient.indices, gradient.dense_shape)
