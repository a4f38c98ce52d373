"""What makes a pass over the gradients cheap on the backend in use."""

import keras
from keras import ops


def sums_of_squares(tensors):
    """Σ v² of each of V float32 tensors, a tensor [V], in one pass over them.

    On TensorFlow and PyTorch one operation does it; `ops.sum(ops.square(...))` writes
    the squares to memory first, which is several times slower. XLA fuses it by itself.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.stack([tf.nn.l2_loss(values) for values in tensors])
    if keras.config.backend() == "torch":
        flat = [values.reshape(-1) for values in tensors]
        return ops.stack([values.dot(values) for values in flat])
    return ops.stack([ops.sum(ops.square(values)) for values in tensors])


def row_squares(matrix):
    """Σ v² of each row of a float32 matrix [n, k], a tensor [n], in one pass."""
    if keras.config.backend() == "jax":
        return ops.sum(ops.square(matrix), axis=1)
    if matrix.shape[0] == 1:
        return sums_of_squares([matrix])
    # The product of a row with itself.
    return ops.reshape(ops.matmul(matrix[:, None, :], matrix[:, :, None]), (-1,))


def largest_of_rows(matrix):
    """The largest of each row of a matrix [n, k] and 0, a tensor [n]; of none, 0."""
    if 0 in tuple(matrix.shape):
        return ops.zeros((matrix.shape[0],), matrix.dtype)
    return ops.maximum(ops.max(matrix, axis=1), 0.0)


def largest(values):
    """The largest of some values and 0, a scalar; of none, 0.

    Not by `ops.max(..., initial=0)`, which waits for the device on PyTorch.
    """
    if 0 in tuple(values.shape):
        return ops.zeros((), values.dtype)
    return ops.maximum(ops.max(values), 0.0)


def sums_by_owner(values, owners, count):
    """Sums of values that belong together, a tensor [count].

    Args:
        values: Tensor [n].
        owners: NumPy array [n], int, to which of the sums each value belongs.
        count: Number of sums.
    """
    if keras.config.backend() == "torch":
        # `ops.segment_sum` waits for the device.
        owners = ops.convert_to_tensor(owners)
        return values.new_zeros(count).index_add(0, owners, values)
    return ops.segment_sum(values, owners, num_segments=count)


def largest_by_owner(values, owners, count):
    """The largest of values that belong together and 0; as `sums_by_owner`."""
    if keras.config.backend() == "torch":
        owners = ops.convert_to_tensor(owners)
        return values.new_zeros(count).scatter_reduce(0, owners, values, "amax")
    return ops.maximum(ops.segment_max(values, owners, num_segments=count), 0.0)
