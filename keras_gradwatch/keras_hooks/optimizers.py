"""The optimizers of a model."""

import weakref

import keras

from keras_gradwatch.keras_hooks.layers import layers_of

# model -> (its `optimizer`, all optimizers): to look for them takes as long as a small
# step on PyTorch.
_found: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def held_optimizers(model):
    """Returns all optimizers that a model trains with, each once.

    Searches attributes of the model and its layers, also in lists and dicts (a GAN has
    two). Cached until `model.optimizer` changes or `look_again` is called.
    """
    own = getattr(model, "optimizer", None)
    known, found = _found.get(model, (None, []))
    if not found or known is not own:
        found = _look(model)
        _found[model] = own, found
    return list(found)


def look_again(model):
    """Makes `held_optimizers` search the model again."""
    _found.pop(model, None)


def _look(model):
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
    """Returns the variables that a built optimizer trains, in its own order."""
    return optimizer._trainable_variables


def _items(value):
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple):
        return list(value)
    return [value]
