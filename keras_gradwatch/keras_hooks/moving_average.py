"""The moving averages of the weights that an optimizer keeps (`use_ema=True`)."""

from keras import ops

from keras_gradwatch.keras_hooks import learning_rate as rates

# Keras has no public name for them; the order is that of the trained variables.
AVERAGES = "_model_variables_moving_average"


def averages_in(optimizer):
    """Returns the moving averages that an optimizer keeps, a list of variables."""
    found = []
    for leaf in rates.leaves(optimizer):
        if getattr(leaf, "use_ema", False):
            found += [v for v in getattr(leaf, AVERAGES, []) if v is not None]
    return found


def averages_of(optimizer, variables):
    """Returns `(average, weight of a new value)` for each variable, or None."""
    found = {}
    for leaf in rates.leaves(optimizer):
        if getattr(leaf, "use_ema", False):
            # The first update is the average.
            first = ops.equal(ops.convert_to_tensor(leaf.iterations), 1)
            weight = ops.where(first, 1.0, 1.0 - leaf.ema_momentum)
            kept = getattr(leaf, AVERAGES, [])
            for variable, average in zip(leaf._trainable_variables, kept, strict=False):
                if average is not None:
                    found[id(variable)] = average, weight
    return [found.get(id(variable)) for variable in variables]
