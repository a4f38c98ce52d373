"""Reading and cutting learning rates, float or schedule."""

import contextlib

import keras
from keras import ops

# The one private name of Keras that this file needs: a schedule cannot be assigned to
# (Keras raises), a schedule of ours around the user's would leak into the saved file,
# and there is no public hook between the schedule and the update.
HOOK = "_get_current_learning_rate"


def leaves(optimizer):
    """The optimizers that have a rate of their own.

    Args:
        optimizer: Any Keras optimizer. `LossScaleOptimizer` keeps the rate on its
            inner optimizer, `MultiOptimizer` on each of its members.

    Returns:
        List of optimizers.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return leaves(optimizer.inner_optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return [leaf for inner in optimizer.optimizers for leaf in leaves(inner)]
    return [optimizer]


def rewrites(optimizer):
    """Whether an optimizer computes the weights from its accumulators alone.

    How far such a step moves the weights says nothing about its rate.
    """
    return any(isinstance(leaf, keras.optimizers.Ftrl) for leaf in leaves(optimizer))


def of(optimizer):
    """The rate of an optimizer, of several the first one's, a float32 scalar."""
    # A copy: on PyTorch, what is read of a variable is the variable.
    return ops.copy(_rate(leaves(optimizer)[0]))


def cut(optimizers, factor, floor, store):
    """Multiplies the learning rates of `optimizers`, between two steps.

    Args:
        optimizers: List of optimizers.
        factor: 0 to 1.
        floor: No rate is cut below this.
        store: Reads and writes variables: `read(variable)`, `write(variable, value)`,
            and `scope()`, a context in which variables have their present values.

    Returns:
        The factor by which the first rate was multiplied; 1 where it was not cut.
    """
    done = []
    for leaf in [leaf for optimizer in optimizers for leaf in leaves(optimizer)]:
        variable = leaf._learning_rate
        if not isinstance(variable, keras.Variable):
            variable = scale_of(leaf)
        with store.scope():
            rate = float(ops.convert_to_numpy(_rate(leaf)))
        if variable is None or not rate > 0:
            done.append(1.0)
            continue
        wanted = max(rate * factor, min(rate, floor))
        store.write(variable, store.read(variable) * (wanted / rate))
        done.append(wanted / rate)
    return done[0] if done else 1.0


def _rate(leaf):
    return ops.cast(ops.convert_to_tensor(leaf.learning_rate), "float32")


def scale_of(optimizer):
    """The variable that multiplies an optimizer's schedule, or None."""
    return getattr(vars(optimizer).get(HOOK), "scale", None)


def hook_schedules(optimizers, make_variable):
    """Puts a scale variable behind every schedule; before the step is traced.

    Args:
        optimizers: List of optimizers, with or without schedules.
        make_variable: Function that makes a float32 variable of 1, of a number: the
            optimizer's place among all that have a rate of their own.

    Raises:
        RuntimeError: If this version of Keras reads schedules in another way.
    """
    every = [leaf for optimizer in optimizers for leaf in leaves(optimizer)]
    for index, leaf in enumerate(every):
        scheduled = not isinstance(leaf._learning_rate, keras.Variable)
        if scheduled and scale_of(leaf) is None:
            _hook(leaf, make_variable(index))


def _hook(leaf, scale):
    original = getattr(leaf, HOOK, None)
    if original is None:
        raise RuntimeError(
            f"keras_gradwatch cannot cut a learning rate schedule under Keras "
            f"{keras.__version__}: Optimizer.{HOOK} is gone. Use a float rate, or "
            "leave ReduceLROnExplosion out."
        )

    def scaled():
        rate = original()
        factor = scaled.pinned
        if factor is None:
            factor = ops.convert_to_tensor(scale)
        return rate * ops.cast(factor, getattr(rate, "dtype", "float32"))

    scaled.scale, scaled.pinned = scale, None
    object.__setattr__(leaf, HOOK, scaled)


@contextlib.contextmanager
def pinned(optimizer, read):
    """Context in which an optimizer's schedules are scaled by what is read now.

    In JAX's stateless scopes only the variables that were handed over can be read.

    Args:
        optimizer: Any Keras optimizer.
        read: Function of a variable, its value in the step.
    """
    hooks = [vars(leaf).get(HOOK) for leaf in leaves(optimizer)]
    hooks = [hook for hook in hooks if hasattr(hook, "scale")]
    for hook in hooks:
        hook.pinned = read(hook.scale)
    try:
        yield
    finally:
        for hook in hooks:
            hook.pinned = None


def unhook_schedules(optimizers):
    """Removes what `hook_schedules` put in; the schedules run uncut again."""
    for optimizer in optimizers:
        for leaf in leaves(optimizer):
            if scale_of(leaf) is not None:
                object.__delattr__(leaf, HOOK)
