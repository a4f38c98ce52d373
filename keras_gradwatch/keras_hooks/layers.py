"""The layers of a model."""


def layers_of(model):
    """The model and all layers below it, each once.

    The one use of Keras's private walk over nested layers; `Model.layers` is only the
    first level, and misses layers in lists, dicts and layers of layers.
    """
    walk = getattr(model, "_flatten_layers", None)
    return list(walk()) if walk is not None else [model]
