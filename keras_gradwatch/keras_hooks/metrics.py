"""The metrics that a model was compiled with."""

import keras


def metric_names(model):
    """The names of the metrics that were given to `compile`, short where known.

    Args:
        model: A compiled Keras trainer.

    Returns:
        List of str: `"accuracy"` for all kinds of accuracy. Empty where unknown.
    """
    given = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    named = [getattr(m, "name", m) for m in keras.tree.flatten(given)]
    names = [name for name in named if isinstance(name, str)]
    return ["accuracy" if n == "acc" or "accuracy" in n else n for n in names]
