"""Gradient accumulation: what the optimizer will see is the average over a window."""

import keras
import tensorflow as tf

from keras_gradwatch.capture.rates import leaves


def applications(optimizer):
    """How often `apply` has changed something, an int: micro-batches count one each."""
    leaf = leaves(optimizer)[0]
    return int(keras.ops.convert_to_numpy(leaf._iterations))


class Window:
    """The accumulation window that the present micro-batch belongs to.

    Keras has no public reading of a window's progress or of the accumulators; the
    private attributes are read here and nowhere else.

    Args:
        optimizer: A built Keras optimizer, with or without accumulation.
        variables: The variables whose gradients are watched.

    Attributes:
        partial: Scalar bool, True where more micro-batches of the window are to come;
            None without accumulation.
    """

    def __init__(self, optimizer, variables):
        leaf = leaves(optimizer)[0]
        self.steps = leaf.gradient_accumulation_steps
        self.partial = None
        if not self.steps:
            return
        done = tf.convert_to_tensor(leaf._iterations.value)
        self.partial = (done + 1) % self.steps != 0
        self._accumulators = [
            leaf._accumulated_gradients[leaf._get_variable_index(v)] for v in variables
        ]

    def average(self, gradients):
        """The averages over the window so far; the gradients without accumulation."""
        if not self.steps:
            return gradients
        return [
            (tf.convert_to_tensor(g) + tf.cast(a.value, g.dtype)) / self.steps
            for g, a in zip(gradients, self._accumulators, strict=True)
        ]

    def hand_over(self, averages):
        """What to give `apply` so that it uses `averages`; empties the accumulators.

        To be called inside the branch in which the gradients are changed.
        """
        if not self.steps:
            return averages
        for accumulator in self._accumulators:
            accumulator.assign(tf.zeros_like(accumulator.value))
        return [g * self.steps for g in averages]
