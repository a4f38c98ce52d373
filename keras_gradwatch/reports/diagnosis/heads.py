"""The last layers of a model beside the losses that they are trained with."""

import keras

from keras_gradwatch.keras_hooks.outputs import outputs

# Losses by what they are made for, lower case and without underscores.
FAMILIES = {
    "binary": ("binarycrossentropy", "bce", "binaryfocalcrossentropy"),
    "classes": (
        "categoricalcrossentropy",
        "categoricalfocalcrossentropy",
        "sparsecategoricalcrossentropy",
    ),
    "percentage": ("meanabsolutepercentageerror", "mape"),
    "logarithm": ("meansquaredlogarithmicerror", "msle", "poisson"),
    "regression": (
        "meansquarederror",
        "meanabsoluteerror",
        "mse",
        "mae",
        "huber",
        "huberloss",
        "logcosh",
    ),
}


def heads(model):
    """Describes each output of a built and compiled Keras trainer, a list of dicts.

    Each has `output`, its name; `layer`, the name of its layer; `activation`, a name,
    `"linear"` for none, or None if unknown; `units`, or None; `steps` of a sequence, or
    None; `loss`, its name; `family`, a key of `FAMILIES` or None; `from_logits`, a
    bool; and `ignores`, a class that the loss leaves out, or None.
    """
    found = outputs(model)
    losses = _losses(model, len(found))
    heads = [_head(*pair, loss) for pair, loss in zip(found, losses, strict=False)]
    names = getattr(model, "output_names", [])
    for head, name in zip(heads, names, strict=False):
        head["output"] = name
    return heads


def _head(layer, shape, loss):
    name = name_of(loss)
    return {
        "layer": getattr(layer, "name", None),
        "activation": activation_of(layer),
        "units": shape[-1],
        "steps": shape[1] if len(shape) == 3 else None,
        "loss": name,
        "family": family_of(name),
        "from_logits": _from_logits(loss),
        "ignores": getattr(loss, "ignore_class", None),
    }


def family_of(loss):
    """Returns the key of `FAMILIES` for the name of a loss, or None."""
    key = (loss or "").lower().replace("_", "")
    return next((family for family, names in FAMILIES.items() if key in names), None)


def activation_of(layer):
    """Returns the name of an activation: `"linear"` for none, None if unknown."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    if isinstance(layer, keras.layers.ReLU):
        return "relu"
    if layer is None or not hasattr(layer, "activation"):
        return None
    return name_of(layer.activation) or "linear"


def name_of(thing):
    """Returns the name of a function, an object or a str; None for a container."""
    if thing is None or isinstance(thing, str):
        return thing
    name = getattr(thing, "__name__", None) or type(thing).__name__
    return None if isinstance(thing, dict | list | tuple) else name


def _losses(model, count):
    """Returns the loss of each output, as it was passed to `compile`."""
    given = getattr(model, "loss", None)
    if isinstance(given, dict):
        names = list(getattr(model, "output_names", []))
        return [given.get(name) for name in names]
    if isinstance(given, list | tuple):
        return list(given)
    return [given] * count


def _from_logits(loss):
    config = loss.get_config() if isinstance(loss, keras.losses.Loss) else {}
    return bool(config.get("from_logits", getattr(loss, "from_logits", False)))
