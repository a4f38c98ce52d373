"""The layers of a model."""


def layers_of(model):
    """Returns the model and all layers below it, each once.

    `Model.layers` has only the first level, and misses layers in lists and dicts.
    """
    walk = getattr(model, "_flatten_layers", None)
    return list(walk()) if walk is not None else [model]
