"""The one reduction that runs over every gradient at every step."""

import keras
from keras import ops


def sum_of_squares(values):
    """Σ v² of a float32 tensor, a scalar.

    On TensorFlow one fused operation does it in one pass; `ops.sum(ops.square(...))`
    writes the squares to memory first, which is several times slower.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return 2.0 * tf.nn.l2_loss(values)
    return ops.sum(ops.square(values))
