"""Reading and cutting learning rates, float or schedule."""

import contextlib

import keras
from keras import ops

# The one private name of Keras that this file needs: a schedule cannot be assigned to
# (Keras raises), a schedule of ours around the user's would leak into the saved file,
# and there is no public hook between the schedule and the update.
HOOK = "_get_current_learning_rate"
# A factor above this is 1 up to rounding.
WHOLE = 1 - 1e-6


def leaves(optimizer):
    """Returns the optimizers that have their own learning rate, a list.

    These are the inner ones of a `LossScaleOptimizer` or a `MultiOptimizer`.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return leaves(optimizer.inner_optimizer)
    if isinstance(optimizer, keras.optimizers.MultiOptimizer):
        return [leaf for inner in optimizer.optimizers for leaf in leaves(inner)]
    return [optimizer]


def rewrites(optimizer):
    """Returns whether an optimizer computes the weights from its accumulators alone.

    How far such a step moves the weights says nothing about its rate.
    """
    return any(isinstance(leaf, keras.optimizers.Ftrl) for leaf in leaves(optimizer))


def of(optimizer):
    """Returns the rate of an optimizer, or of its first member, a scalar float32."""
    # A copy: on PyTorch, what is read of a variable is the variable.
    return ops.copy(_rate(leaves(optimizer)[0]))


def all_leaves(optimizers):
    """Returns the `leaves` of several optimizers, a list."""
    return [leaf for optimizer in optimizers for leaf in leaves(optimizer)]


def variable_of(leaf):
    """Returns the variable that holds an optimizer's rate; None for a schedule."""
    rate = leaf._learning_rate
    return rate if isinstance(rate, keras.Variable) else None


def cut(optimizers, factor, floor, least, access, factors):
    """Multiplies learning rates between two steps, and returns the first one's factor.

    Args:
        optimizers: List of optimizers.
        factor: 0 to 1; above 1, it reverts earlier cuts, and no more than those.
        floor: No rate is cut below this.
        least: Nor below this fraction of its value without cuts.
        access: Has `read(variable)`, `write(variable, value)`, and `scope()`, a context
            in which variables have their current values.
        factors: Dict from an optimizer's place to the factor on its float rate, updated
            in place; a schedule has a variable instead.
    """
    done = []
    for place, leaf in enumerate(all_leaves(optimizers)):
        scale = None if variable_of(leaf) is not None else scale_of(leaf)
        fixed = variable_of(leaf) is None and scale is None
        with access.scope():
            rate = float(ops.convert_to_numpy(_rate(leaf)))
        before = factors.get(place, 1.0) if scale is None else access.read(scale)
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
            access.write(scale, after)
        done.append(float(after / before))
    return done[0] if done else 1.0


def _rate(leaf):
    return ops.cast(ops.convert_to_tensor(leaf.learning_rate), "float32")


def scale_of(optimizer):
    """Returns the variable that multiplies an optimizer's schedule, or None."""
    return getattr(vars(optimizer).get(HOOK), "scale", None)


def hook_schedules(optimizers, make_variable):
    """Multiplies every schedule by a scale variable; call before the step is traced.

    `make_variable(place)` creates a float32 variable of 1, by place in `all_leaves`.
    Raises RuntimeError if this version of Keras reads schedules differently.
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
    """Scales an optimizer's schedules by `read(variable)` while the context is active.

    JAX's stateless scopes can read only the variables that were passed in.
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
    """Undoes `hook_schedules`; the schedules are used without cuts again."""
    for leaf in all_leaves(optimizers):
        if scale_of(leaf) is not None:
            object.__delattr__(leaf, HOOK)
