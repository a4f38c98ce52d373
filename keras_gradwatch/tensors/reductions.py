"""Reductions that make a single pass over the gradients on the backend in use."""

import keras
from keras import ops


def sums_of_squares(tensors):
    """Returns Σ v² of each of V float32 tensors, [V], in one pass over them.

    On TensorFlow and PyTorch, `ops.sum(ops.square(...))` writes the squares to memory,
    which is several times slower than a single operation. XLA fuses the two.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.stack([tf.nn.l2_loss(values) for values in tensors])
    if keras.config.backend() == "torch":
        flat = [values.reshape(-1) for values in tensors]
        return ops.stack([values.dot(values) for values in flat])
    return ops.stack([ops.sum(ops.square(values)) for values in tensors])


def row_squares(matrix):
    """Returns the sum of squares of each row of a float32 matrix [n, k], [n]."""
    if keras.config.backend() == "jax":
        return ops.sum(ops.square(matrix), axis=1)
    if matrix.shape[0] == 1:
        return sums_of_squares([matrix])
    # The product of a row with itself.
    return ops.reshape(ops.matmul(matrix[:, None, :], matrix[:, :, None]), (-1,))


def largest_of_rows(matrix):
    """Returns the maximum of each row of a matrix [n, k] and 0, a tensor [n]."""
    if 0 in tuple(matrix.shape):
        return ops.zeros((matrix.shape[0],), matrix.dtype)
    return ops.maximum(ops.max(matrix, axis=1), 0.0)


def largest(values):
    """Returns the maximum of some values and 0, a scalar; 0 for no values.

    Avoids `ops.max(..., initial=0)`, which waits for the device on PyTorch.
    """
    if 0 in tuple(values.shape):
        return ops.zeros((), values.dtype)
    return ops.maximum(ops.max(values), 0.0)


def sums_by_owner(values, owners, count):
    """Sums the values [n] of each of `count` owners, given by an int array [n]."""
    if keras.config.backend() == "torch":
        # `ops.segment_sum` waits for the device.
        owners = ops.convert_to_tensor(owners)
        return values.new_zeros(count).index_add(0, owners, values)
    return ops.segment_sum(values, owners, num_segments=count)


def largest_by_owner(values, owners, count):
    """Returns the maximum of 0 and the `values` of each owner; see `sums_by_owner`."""
    if keras.config.backend() == "torch":
        owners = ops.convert_to_tensor(owners)
        return values.new_zeros(count).scatter_reduce(0, owners, values, "amax")
    return ops.maximum(ops.segment_max(values, owners, num_segments=count), 0.0)
