"""What makes a pass over the gradients cheap on the backend in use."""

import keras
from keras import ops


def sums_of_squares(tensors):
    """Σ v² of each of V float32 tensors, a tensor [V].

    On TensorFlow and PyTorch one fused operation does it in one pass;
    `ops.sum(ops.square(...))` writes the squares to memory first, which is several
    times slower. XLA fuses it by itself.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.stack([tf.nn.l2_loss(values) for values in tensors])
    if keras.config.backend() == "torch":
        flat = [values.reshape(-1) for values in tensors]
        return ops.stack([values.dot(values) for values in flat])
    return ops.stack([ops.sum(ops.square(values)) for values in tensors])


def largest(values):
    """The largest of some values and 0, a scalar; of none, 0.

    Not by `ops.max(..., initial=0)`, which waits for the device on PyTorch.
    """
    if 0 in tuple(values.shape):
        return ops.zeros((), values.dtype)
    return ops.maximum(ops.max(values), 0.0)
