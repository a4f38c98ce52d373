"""The metrics that a model was compiled with."""

import keras


def metric_names(model):
    """Returns names of the metrics given to `compile`, any accuracy as `"accuracy"`."""
    given = getattr(getattr(model, "_compile_metrics", None), "_user_metrics", None)
    named = [getattr(m, "name", m) for m in keras.tree.flatten(given)]
    names = [name for name in named if isinstance(name, str)]
    return ["accuracy" if n == "acc" or "accuracy" in n else n for n in names]
