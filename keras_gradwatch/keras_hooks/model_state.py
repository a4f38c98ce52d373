"""What a skipped step must leave as it was: the model's non-trainable state."""

import keras
from keras import ops

from keras_gradwatch.keras_hooks.accumulation import applications
from keras_gradwatch.keras_hooks.layers import layers_of
from keras_gradwatch.keras_hooks.learning_rate import leaves
from keras_gradwatch.keras_hooks.moving_average import averages_in
from keras_gradwatch.keras_hooks.optimizers import held_optimizers


def restorable(model):
    """The variables that a batch changes besides weights and optimizer state.

    Non-trainable variables (BatchNorm's moving statistics) and metrics; not the seeds
    of random layers, which continue as they would have.

    Args:
        model: A built Keras trainer.

    Returns:
        List of `keras.Variable`, each once.
    """
    seeds = set()
    for layer in layers_of(model):
        for value in list(vars(layer).values()):
            for item in value if isinstance(value, list | tuple) else [value]:
                if isinstance(item, keras.random.SeedGenerator):
                    seeds.add(id(item.state))
    variables = list(getattr(model, "non_trainable_variables", []))
    for metric in model.metrics:
        variables += metric.variables
    unique = {id(v): v for v in variables if id(v) not in seeds}
    return list(unique.values())


def nonfinite_state(model):
    """Which of the model's non-trainable variables hold a value that is not finite.

    Returns:
        Dict from `id` of a `keras.Variable` to a scalar bool tensor.
    """
    result = {}
    for variable in getattr(model, "non_trainable_variables", []):
        value = ops.convert_to_tensor(variable)
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            result[id(variable)] = ops.any(~ops.isfinite(value))
    return result


def newly_nonfinite(before, model):
    """In how many of the model's variables this step left a non-finite value.

    Args:
        before: What `nonfinite_state` gave before the step.
        model: The model.

    Returns:
        Scalar float32.
    """
    total = ops.convert_to_tensor(0.0, "float32")
    for variable, now in nonfinite_state(model).items():
        newly = now & ~before[variable] if variable in before else now
        total = total + ops.cast(newly, "float32")
    return total


def harmed(model):
    """The variables that a bad step may have harmed: weights, state, optimizers'.

    Learning rates, seeds and metrics are not included.

    Returns:
        List of `keras.Variable`, each once.
    """
    optimizers = held_optimizers(model)
    every = [leaf for optimizer in optimizers for leaf in leaves(optimizer)]
    left_out = {id(leaf._learning_rate) for leaf in every}
    left_out |= {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.trainable_variables, *restorable(model)]
    for optimizer in optimizers:
        variables += optimizer.variables
    return [v for v in {id(v): v for v in variables}.values() if id(v) not in left_out]


def slots(model):
    """What the optimizers keep of earlier gradients: momentum, second moments.

    Scalars (iterations, learning rates), moving averages of the weights, and gradient
    accumulators are left out.

    Returns:
        List of pairs: a `keras.Variable`, and its initial value.
    """
    found = []
    for optimizer in held_optimizers(model):
        for leaf in leaves(optimizer):
            others = averages_in(leaf) + getattr(leaf, "_accumulated_gradients", [])
            left_out = {id(variable) for variable in others}
            first = getattr(leaf, "initial_accumulator_value", 0.0)
            own = [v for v in leaf.variables if len(v.shape) and id(v) not in left_out]
            found += [(v, first) for v in own]
    return found


def updates(model, access):
    """How many updates a model's optimizer has made, an int; of several the most.

    Micro-batches of an accumulation window count one each.

    Args:
        model: The model.
        access: `Access` to its variables.
    """
    made = [applications(optimizer, access) for optimizer in held_optimizers(model)]
    return max(made, default=0)


def value_of(variable):
    """The backend's variable of a `keras.Variable`, or of one of its own."""
    return variable.value if isinstance(variable, keras.Variable) else variable
