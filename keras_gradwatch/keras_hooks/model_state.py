"""What a skipped step must leave as it was: the model's non-trainable state."""

import keras
from keras import ops

from keras_gradwatch.keras_hooks.state_metric import Passenger


def layers_of(model):
    """The model and all layers below it, each once.

    The one use of Keras's private walk over nested layers; `Model.layers` is only the
    first level, and misses layers in lists, dicts and layers of layers.
    """
    walk = getattr(model, "_flatten_layers", None)
    return list(walk()) if walk is not None else [model]


def restorable(model):
    """The variables that a batch changes beside weights and optimizer state.

    Non-trainable variables (BatchNorm's moving statistics) and metrics; not the seeds
    of random layers, which go on as they would have.

    Args:
        model: A built Keras trainer.

    Returns:
        List of `keras.Variable`, each once.
    """
    seeds = set()
    for layer in layers_of(model):
        for value in list(vars(layer).values()):
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, keras.random.SeedGenerator):
                    seeds.add(id(item.state))
    variables = list(getattr(model, "non_trainable_variables", []))
    for metric in model.metrics:
        if not isinstance(metric, Passenger):
            variables += metric.variables
    unique = {id(v): v for v in variables if id(v) not in seeds}
    return list(unique.values())


def spoiled(model):
    """Which of the model's non-trainable variables hold a value that is not finite.

    Returns:
        Dict from `id` of a `keras.Variable` to a scalar bool tensor.
    """
    result = {}
    for variable in getattr(model, "non_trainable_variables", []):
        value = ops.convert_to_tensor(variable)
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            result[id(variable)] = ops.any(~ops.isfinite(value))
    return result


def value_of(variable):
    """The backend's variable of a `keras.Variable`, or of one of its own."""
    return variable.value if isinstance(variable, keras.Variable) else variable
