"""The optimizers of a model."""

import keras

from keras_gradwatch.keras_hooks.layers import layers_of


def held_optimizers(model):
    """All optimizers that a model trains with, each once.

    That is `model.optimizer`, and those in attributes of the model or of one of its
    layers, also in lists and dicts (a GAN has two).

    Args:
        model: A Keras trainer.

    Returns:
        List of `keras.optimizers.Optimizer`.
    """
    found = {}
    for holder in layers_of(model):
        for name, value in list(vars(holder).items()):
            if name.startswith("_self_"):
                continue  # TensorFlow's tracking, which keeps replaced optimizers
            for item in _items(value):
                if isinstance(item, keras.optimizers.Optimizer):
                    found[id(item)] = item
    return list(found.values())


def trained_by(optimizer):
    """The variables that a built optimizer trains, a list in its own order."""
    return optimizer._trainable_variables


def _items(value):
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return [value]
