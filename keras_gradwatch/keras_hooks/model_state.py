"""What a skipped step must leave unchanged: the model's non-trainable state."""

import keras
from keras import ops

from keras_gradwatch.keras_hooks.accumulation import applications
from keras_gradwatch.keras_hooks.layers import layers_of
from keras_gradwatch.keras_hooks.learning_rate import all_leaves
from keras_gradwatch.keras_hooks.moving_average import averages_in
from keras_gradwatch.keras_hooks.optimizers import held_optimizers


def restorable(model):
    """Returns non-trainable variables and metrics, which a batch changes, each once.

    Excludes the seeds of random layers, which continue as they would have.
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
    """Maps ids of non-trainable float variables to whether they are non-finite."""
    result = {}
    for variable in getattr(model, "non_trainable_variables", []):
        value = ops.convert_to_tensor(variable)
        if keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype)):
            result[id(variable)] = ops.any(~ops.isfinite(value))
    return result


def newly_nonfinite(before, model):
    """Counts variables newly non-finite since `before`, a scalar float32."""
    total = ops.convert_to_tensor(0.0, "float32")
    for variable, now in nonfinite_state(model).items():
        newly = now & ~before[variable] if variable in before else now
        total = total + ops.cast(newly, "float32")
    return total


def corruptible(model):
    """Returns weights, state and optimizer variables, which a bad step may corrupt.

    Excludes learning rates, seeds and metrics.
    """
    optimizers = held_optimizers(model)
    left_out = {id(leaf._learning_rate) for leaf in all_leaves(optimizers)}
    left_out |= {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.trainable_variables, *restorable(model)]
    for optimizer in optimizers:
        variables += optimizer.variables
    return [v for v in {id(v): v for v in variables}.values() if id(v) not in left_out]


def slots(model):
    """Returns optimizer slots (momentum, second moments) with their initial values.

    Excludes scalars, moving averages of the weights, and gradient accumulators.
    """
    found = []
    for leaf in all_leaves(held_optimizers(model)):
        others = averages_in(leaf) + getattr(leaf, "_accumulated_gradients", [])
        left_out = {id(variable) for variable in others}
        first = getattr(leaf, "initial_accumulator_value", 0.0)
        own = [v for v in leaf.variables if len(v.shape) and id(v) not in left_out]
        found += [(v, first) for v in own]
    return found


def updates(model, access):
    """Returns the largest update count of any optimizer; micro-batches count, too."""
    made = [applications(optimizer, access) for optimizer in held_optimizers(model)]
    return max(made, default=0)


def value_of(variable):
    """Returns the backend's variable of a `keras.Variable`, or `variable` itself."""
    return variable.value if isinstance(variable, keras.Variable) else variable
