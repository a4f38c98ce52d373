"""What the host asks of a watched model, the same on every backend."""

from keras_gradwatch.keras_hooks import learning_rate as rates
from keras_gradwatch.keras_hooks.accumulation import applications
from keras_gradwatch.keras_hooks.interception import held_optimizers
from keras_gradwatch.keras_hooks.model_state import restorable


def check(model):
    """Raises where this model cannot be watched in the way it is compiled.

    Raises:
        ValueError: Without an optimizer.
    """
    if not held_optimizers(model):
        raise ValueError(
            f"The model {model.name!r} has no optimizer, so it has no gradients to "
            "watch. Call `model.compile(optimizer=...)` before `fit`."
        )


def updates(model):
    """How many updates a model's optimizer has made, an int; of several the most.

    Micro-batches of an accumulation window count one each.
    """
    return max(map(applications, held_optimizers(model)), default=0)


def harmed(model):
    """The variables that a bad step may have harmed: weights, state, optimizers'.

    Learning rates are left out, and so are seeds and metrics.

    Returns:
        List of `keras.Variable`, each once.
    """
    optimizers = held_optimizers(model)
    leaves = [leaf for optimizer in optimizers for leaf in rates.leaves(optimizer)]
    left_out = {id(leaf.learning_rate) for leaf in leaves}
    left_out |= {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.trainable_variables, *restorable(model)]
    for optimizer in optimizers:
        variables += optimizer.variables
    return [v for v in {id(v): v for v in variables}.values() if id(v) not in left_out]


def cut_rates(model, factor, min_lr):
    """Multiplies the learning rates of a model's optimizers by `factor`, now."""
    rates.cut_now(held_optimizers(model), factor, min_lr)


def release(model):
    """Removes what stays on a model's optimizers between steps."""
    rates.unhook_schedules(held_optimizers(model))


def check_strategy(model):
    """Raises where this model was made under a strategy that is not supported."""
    del model


def sync(model):
    """Brings the variables up to date that the host is about to read or to write."""
    del model


def make_train_function(model, monitor, make):
    """Has Keras make the train function.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        make: The model's own `make_train_function`.
    """
    del model, monitor
    make()
