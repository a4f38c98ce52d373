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
    """Returns the layer of each output; empty if unknown, as for subclassed models."""
    return [layer for layer, _ in outputs(model)]


def outputs(model):
    """Returns `(layer, shape)` of each output; see `output_layers`.

    The `output` of an embedding that is also the last layer has a different shape.
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
