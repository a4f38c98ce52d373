"""Reading and cutting learning rates, float or schedule."""

import contextlib

import keras
from keras import ops

# The one private name of Keras that this file needs: a schedule cannot be assigned to
# (Keras raises), a schedule of ours around the user's would leak into the saved file,
# and there is no public hook between the schedule and the update.
HOOK = "_get_current_learning_rate"
# A factor beyond this is 1, but for rounding.
WHOLE = 1 - 1e-6


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


def all_leaves(optimizers):
    """The optimizers that have a rate of their own, of several optimizers, a list."""
    return [leaf for optimizer in optimizers for leaf in leaves(optimizer)]


def variable_of(leaf):
    """The variable that holds an optimizer's rate; None for a schedule."""
    rate = leaf._learning_rate
    return rate if isinstance(rate, keras.Variable) else None


def cut(optimizers, factor, floor, least, store, factors):
    """Multiplies the learning rates of `optimizers`, between two steps.

    Args:
        optimizers: List of optimizers.
        factor: 0 to 1; above 1, it takes back earlier cuts, and no more than these.
        floor: No rate is cut below this.
        least: Nor below this fraction of what it was without cuts.
        store: Reads and writes variables: `read(variable)`, `write(variable, value)`,
            and `scope()`, a context in which variables have their present values.
        factors: Dict of an optimizer's place to the factor on its float rate; updated
            in place. A schedule has a variable for it.

    Returns:
        The factor by which the first rate was multiplied; 1 where it was not cut.
    """
    done = []
    for place, leaf in enumerate(all_leaves(optimizers)):
        scale = None if variable_of(leaf) is not None else scale_of(leaf)
        fixed = variable_of(leaf) is None and scale is None
        with store.scope():
            rate = float(ops.convert_to_numpy(_rate(leaf)))
        before = factors.get(place, 1.0) if scale is None else store.read(scale)
        if scale is None:
            rate *= before
        if fixed or not rate > 0:
            done.append(1.0)
            continue
        wanted = max(rate * factor, min(rate, floor))
        after = max(before * (wanted / rate), min(before, least))
        after = 1.0 if after > WHOLE else after
        if scale is None:
            factors[place] = float(after)
        else:
            store.write(scale, after)
        done.append(float(after / before))
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
    for index, leaf in enumerate(all_leaves(optimizers)):
        if variable_of(leaf) is None and scale_of(leaf) is None:
            _hook(leaf, make_variable(index))


def _hook(leaf, scale):
    original = getattr(leaf, HOOK, None)
    if original is None:
        raise RuntimeError(
            f"keras_gradwatch cannot cut a learning rate schedule under Keras "
            f"{keras.__version__}, which has no Optimizer.{HOOK}. Use a float "
            "learning rate, or remove the callback that cuts it (GradWatch, "
            "ReduceLROnExplosion or RewindOnExplosion)."
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
