"""The layers that a model's outputs come from."""

import keras

# They pass their inputs on as they are.
TRANSPARENT = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Reshape,
)


def output_layers(model):
    """The layer of each output of a model, a list; empty where that is not known.

    Args:
        model: A Keras trainer; only Functional and Sequential ones tell it.
    """
    return [layer for layer, _ in outputs(model)]


def outputs(model):
    """The layer of each output, and the shape of the output, pairs.

    An embedding that is the last layer, too, has another shape in its own `output`.

    Args:
        model: A Keras trainer; empty unless it is Functional or Sequential.
    """
    found = []
    for output in keras.tree.flatten(getattr(model, "outputs", None) or []):
        layer, shape = _producer(output), getattr(output, "shape", None)
        while isinstance(layer, TRANSPARENT):
            layer = _producer(layer.input)
        if isinstance(layer, keras.Model):  # a model as the last layer
            inner = output_layers(layer)
            layer = inner[0] if len(inner) == 1 else None
        found.append((layer, shape or (None,)))
    return found


def _producer(tensor):
    history = getattr(tensor, "_keras_history", None)
    return getattr(history, "operation", None)
