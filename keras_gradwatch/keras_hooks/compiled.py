"""What a model was compiled with."""

from keras_gradwatch.keras_hooks.optimizers import held_optimizers


def compiled_with(model):
    """Returns ids of optimizers and loss; `compile` creates a new loss each time."""
    loss = getattr(model, "_compile_loss", None)
    return (*map(id, held_optimizers(model)), id(loss))
