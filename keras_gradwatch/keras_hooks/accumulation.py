"""Gradient accumulation: the optimizer uses the average over a window."""

import keras
from keras import ops

from keras_gradwatch.keras_hooks.learning_rate import leaves
from keras_gradwatch.tensors import sparse


def applications(optimizer, access):
    """Returns how many times `apply` took effect; each micro-batch counts as one."""
    while isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer
    return int(access.read(optimizer._iterations))


class Window:
    """The accumulation window of the current micro-batch.

    Keras has no public API for a window's progress or the accumulators; the private
    attributes are read only here.

    Attributes:
        partial: Scalar bool, True if the window has more micro-batches to come; None
            without accumulation.
        lengths: Set of the window's lengths, 1 without accumulation; several if the
            members of a `MultiOptimizer`, which accumulate separately, differ.
    """

    def __init__(self, optimizer, variables):
        self.partial = None
        self.lengths = {
            leaf.gradient_accumulation_steps or 1 for leaf in leaves(optimizer)
        }
        self._parts = [_part(optimizer, variable) for variable in variables]
        for leaf in leaves(optimizer):
            if leaf.built and leaf.gradient_accumulation_steps:
                done = ops.convert_to_tensor(leaf._iterations)
                more = (done + 1) % leaf.gradient_accumulation_steps != 0
                self.partial = more if self.partial is None else self.partial | more

    def average(self, gradients):
        """Returns the sums of the window so far, divided by its length if any."""
        return [
            (sparse.dense(g) + ops.cast(ops.convert_to_tensor(part), g.dtype)) / steps
            if steps
            else g
            for g, (steps, part) in zip(gradients, self._parts, strict=True)
        ]

    def dense(self, gradients):
        """Returns the gradients, dense where they are accumulated."""
        return [
            sparse.dense(g) if steps else g
            for g, (steps, _) in zip(gradients, self._parts, strict=True)
        ]

    @property
    def accumulators(self):
        """The accumulators in which the window's gradients are summed."""
        return [accumulator for steps, accumulator in self._parts if steps]

    def hand_over(self, averages):
        """Scales averages so that `apply` uses them, with empty accumulators."""
        return [
            g * steps if steps else g
            for g, (steps, _) in zip(averages, self._parts, strict=True)
        ]


def _part(optimizer, variable):
    """Returns `(steps, accumulator)` of a variable; `(None, None)` without any."""
    for leaf in leaves(optimizer):
        steps = leaf.gradient_accumulation_steps
        if steps and leaf._var_key(variable) in leaf._trainable_variables_indices:
            index = leaf._get_variable_index(variable)
            return steps, leaf._accumulated_gradients[index]
    return None, None
