"""The momentums of an optimizer: the moving averages of gradients that it keeps."""

from typing import NamedTuple

import keras

from keras_gradwatch.keras_hooks import learning_rate as rates

# Attributes of an optimizer: its momentums, in the order of the trained variables, and
# their decay. Keras has no public name for most of them.
NAMES = {
    keras.optimizers.SGD: ("momentums", "momentum"),
    keras.optimizers.RMSprop: ("_momentums", "momentum"),
    keras.optimizers.Adam: ("_momentums", "beta_1"),
    keras.optimizers.Nadam: ("_momentums", "beta_1"),
    keras.optimizers.Lamb: ("_momentums", "beta_1"),
    keras.optimizers.Adamax: ("_m", "beta_1"),
}


class Momentum(NamedTuple):
    """A momentum m: each step makes it `decay · m` plus a term with the gradient."""

    variable: object
    decay: float


def momentums_of(optimizer, variables):
    """Returns the `Momentum` of each variable, None where there is none."""
    found = {}
    for leaf in rates.leaves(optimizer):
        for kind, (name, decay) in NAMES.items():
            if isinstance(leaf, kind) and getattr(leaf, decay, 0.0):
                kept = getattr(leaf, name, [])
                for variable, own in zip(leaf._trainable_variables, kept, strict=False):
                    found[id(variable)] = Momentum(own, float(getattr(leaf, decay)))
    return [found.get(id(variable)) for variable in variables]
