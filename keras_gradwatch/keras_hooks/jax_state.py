"""The state that Keras's trainer hands from step to step on JAX."""

import contextlib

SHARDINGS = "_get_state_sharding_spec"


def state_variables(model):
    """The variables whose values are the state, a tuple of four lists."""
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )


def adopt(variables, arrays):
    """Has variables hold these arrays, without a copy, as Keras's trainer does it."""
    for variable, array in zip(variables, arrays, strict=True):
        variable._value = array


@contextlib.contextmanager
def one_group_more(model, variables):
    """Context in which Keras makes a train function for a state with one list more.

    Under a distribution the function is made for the shardings of what it returns.

    Args:
        model: The watched model.
        variables: Those of the fifth list.
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
    """Has Keras read the variables again, rather than a state that it has kept.

    Keras has no public name for this: a state that was donated to a failed step would
    be assigned to the variables when `fit` ends.
    """
    model._jax_state_synced = True


@contextlib.contextmanager
def state_in_hand(model):
    """Context in which `jax_state_sync` does nothing: the state is not Keras's now.

    Whoever asks a Keras callback for its model has it assign the state of the last
    step, which is older than the one in hand.
    """
    before = model._jax_state_synced
    model._jax_state_synced = True
    yield
    model._jax_state_synced = before


def another(step):
    """The same step, another function: JAX remembers the trace of each function."""

    def train_step(*arguments):
        return step(*arguments)

    return train_step
