"""What of a model matters for a diagnosis, as plain data."""

from collections import Counter

import keras

from keras_gradwatch.records.names import unique

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)
REGRESSION = ("squared", "absolute", "huber", "log_cosh", "logcosh", "mse", "mae")


def describe(model):
    """What is known of a built and compiled model, as plain data.

    Args:
        model: A `keras.Model`.

    Returns:
        Dict of `shapes` (name of each trainable variable to its shape), `activations`
        (name to number of layers), `normalized` (bool), `loss` (its name, or None) and
        `regression` (bool).
    """
    layers = list(_layers(model))
    names = unique(v.path for v in model.trainable_variables)
    loss = _name(getattr(model, "loss", None))
    # Loss names come as mse, mean_squared_error and MeanSquaredError.
    regression = any(word in (loss or "").lower() for word in REGRESSION)
    return {
        "shapes": {
            name: list(v.shape)
            for name, v in zip(names, model.trainable_variables, strict=True)
        },
        "activations": dict(
            Counter(a for a in map(_activation, layers) if a not in (None, "linear"))
        ),
        "normalized": any(isinstance(layer, NORMALIZATIONS) for layer in layers),
        "loss": loss,
        "regression": regression,
    }


def _layers(layer):
    for inner in getattr(layer, "layers", ()):
        yield inner
        yield from _layers(inner)


def _activation(layer):
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    return _name(getattr(layer, "activation", None))


def _name(thing):
    """The name of a function, an object, or a string; None for anything else."""
    if thing is None or isinstance(thing, str):
        return thing
    name = getattr(thing, "__name__", None) or type(thing).__name__
    return None if isinstance(thing, dict | list | tuple) else name
