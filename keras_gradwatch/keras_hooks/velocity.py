"""The velocity that SGD with momentum adds to the weights."""

import keras

from keras_gradwatch.keras_hooks import learning_rate as rates


def velocities_of(optimizer, variables):
    """Returns the velocity of each variable under SGD with momentum, or None."""
    found = {}
    for leaf in rates.leaves(optimizer):
        if isinstance(leaf, keras.optimizers.SGD):
            kept = getattr(leaf, "momentums", [])  # in the order of the variables
            pairs = zip(leaf._trainable_variables, kept, strict=False)
            found |= {id(variable): velocity for variable, velocity in pairs}
    return [found.get(id(variable)) for variable in variables]
