"""What makes the passes over the gradients cheap on the backend in use."""

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


def outlined(function):
    """`function` as one operation of the graph, for a branch that is seldom taken.

    TensorFlow's executor visits every operation of both branches of a condition, also
    of the one that is not taken. A function that must not be inlined counts as one.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        if tf.inside_function():
            return tf.function(
                function, autograph=False, experimental_attributes={"_noinline": True}
            )
    return function
