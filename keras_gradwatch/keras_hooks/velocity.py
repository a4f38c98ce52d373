"""The velocity that SGD with momentum adds to the weights."""

import math

import keras

from keras_gradwatch.keras_hooks import learning_rate as rates


def velocities_of(optimizer, variables):
    """Returns `(velocity, factor)` of each variable under SGD with momentum, or None.

    The norm of the velocity is `factor` times that of the gradients, if these are
    independent and equally large: learning rate / √(1 − momentum²).
    """
    found = {}
    for leaf in rates.leaves(optimizer):
        if isinstance(leaf, keras.optimizers.SGD) and leaf.momentum:
            factor = rates.of(leaf) / math.sqrt(max(1.0 - leaf.momentum**2, 1e-6))
            # In the order of the variables.
            pairs = zip(leaf._trainable_variables, leaf.momentums, strict=False)
            found |= {id(variable): (velocity, factor) for variable, velocity in pairs}
    return [found.get(id(variable)) for variable in variables]
