"""TensorFlow's sparse gradients: `IndexedSlices` to `SparseRows` and back.

On the other backends every gradient is dense, and passes through.
"""

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
    """Whether a gradient is a `tf.IndexedSlices`."""
    return hasattr(gradient, "dense_shape")


def dense(gradient):
    """A dense tensor of a gradient, dense or sparse."""
    if is_sparse(gradient):
        import tensorflow as tf

        return tf.convert_to_tensor(gradient)
    return gradient


def unique_rows(gradient):
    """An `IndexedSlices` in which every row stands once.

    Rows with the same index are summed; the table itself is never materialised. The
    shape stays that of the input (XLA needs it to be known): rows that became free are
    zero, and carry an index that is in use.

    Args:
        gradient: `tf.IndexedSlices` of n rows, or a dense tensor.

    Returns:
        `tf.IndexedSlices` of n rows; a dense tensor as it is.
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
    """`SparseRows` of what was sparse; a dense tensor as it is.

    Args:
        gradient: `IndexedSlices` of unique rows, or a dense tensor.
        local: The gradient that it was made from. Where that was sparse, a dense tensor
            is the sum of many: all of its rows.
        shape: Of the variable.
    """
    if not is_sparse(local):
        return gradient
    size = 1
    for length in shape:
        size *= length
    sparse = is_sparse(gradient)
    return SparseRows(gradient.values if sparse else gradient, size)


def map_values(function, gradient):
    """Applies `function` to the values of a gradient, dense or sparse."""
    if is_sparse(gradient):
        values = function(gradient.values)
        return _with_values(gradient, values)
    return function(gradient)


def like(new, gradient, dtype, scale, count):
    """A gradient as a policy changed it, made ready for `apply` in each replica.

    Args:
        new: Dense tensor or `SparseRows`.
        gradient: The gradient that it was made from, for the indices of its rows.
        dtype: Of the result.
        scale: What `apply` divides by, or None.
        count: Number of replicas over which `apply` sums.
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
    """Σ gᵢ·tᵢ of all gradients and as many dense tensors, a float32 scalar.

    Args:
        gradients: List of V dense tensors, or `IndexedSlices` of unique rows.
        packed: `Packed` of the V tensors.
        matrices: What it has joined them to.
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
