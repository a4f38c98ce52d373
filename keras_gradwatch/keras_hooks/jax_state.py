"""The state that Keras's trainer passes from step to step on JAX."""

import contextlib

SHARDINGS = "_get_state_sharding_spec"


def state_variables(model):
    """Returns the variables whose values are the state, a tuple of four lists."""
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )


def adopt(variables, arrays):
    """Makes variables hold arrays without a copy, as Keras's trainer does."""
    for variable, array in zip(variables, arrays, strict=True):
        variable._value = array


@contextlib.contextmanager
def one_group_more(model, variables):
    """Makes Keras build its train function for a state with a fifth list, `variables`.

    Under a distribution, the function is compiled for the shardings of what it returns.
    """
    own = getattr(model, SHARDINGS, None)
    if own is None:
        yield
        return

    def shardings():
        return (*own(), [variable.value.sharding for variable in variables])

    object.__setattr__(model, SHARDINGS, shardings)
    try:
        yield
    finally:
        object.__delattr__(model, SHARDINGS)


def mark_synced(model):
    """Makes Keras read the variables again, not the state that it has kept.

    Else `fit` would end by assigning a state that was donated to a failed step.
    """
    model._jax_state_synced = True


@contextlib.contextmanager
def state_in_hand(model):
    """Disables `jax_state_sync` while active, as Keras does not hold the state.

    A Keras callback's `model` property would assign the older state of the last step.
    """
    before = model._jax_state_synced
    model._jax_state_synced = True
    yield
    model._jax_state_synced = before


def another(step):
    """Wraps a step in a new function, as JAX caches the trace of each function."""

    def train_step(*arguments):
        return step(*arguments)

    return train_step
