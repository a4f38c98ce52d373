"""What a model was compiled with."""

from keras_gradwatch.keras_hooks.optimizers import held_optimizers


def compiled_with(model):
    """The optimizers and the loss of a model, to be compared with those of later.

    Args:
        model: A compiled Keras trainer.

    Returns:
        Tuple of ids. `compile` makes another object for the loss each time.
    """
    loss = getattr(model, "_compile_loss", None)
    return (*map(id, held_optimizers(model)), id(loss))
