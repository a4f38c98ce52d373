"""The trust region on the device, which limits the size of updates.

Once an update has done harm, restoring its weights only postpones the next one: it is
likely to be as large. So each later update is limited in its own step, and the trust
region shrinks while the loss does not fall.
"""

from functools import partial

from keras import ops

from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks.momentum import momentums_of
from keras_gradwatch.keras_hooks.moving_average import averages_of
from keras_gradwatch.tensors import sparse
from keras_gradwatch.tensors.packed import Packed
from keras_gradwatch.tensors.reductions import row_squares
from keras_gradwatch.train_step import momentum
from keras_gradwatch.train_step.application import size
from keras_gradwatch.train_step.updates import constrained

# The smallest root mean square that is assumed for the weights of a kernel, so that one
# that starts at zero can be trained.
FLOOR = 0.05
# The smallest cut-off fraction that is recorded for an update that was limited.
LEAST_CUT = 1e-6


def limit(before, after, inner, loss, control):
    """Limits an update; returns V float32 weights, and whether anything was limited.

    Args:
        before: List of V tensors, the weights before the update.
        after: List of V tensors, the weights after the optimizer's update.
        inner: Function of `Packed` and the matrices of the V changes: the scalar Σ g·Δ.
        loss: Scalar float32, NaN if unknown.
        control: Dict with the scalars `radius`, `element` and `decrease`.
    """
    radius, packed = control["radius"], Packed(after)
    olds, news = packed.join(before), packed.join(after)
    sizes = ops.convert_to_tensor([max(size(w.shape), 1.0) for w in after])
    roots = _roots(packed, olds, sizes)
    bounds = packed.distribute(control["element"] * radius * roots)
    wanted = [new - old for old, new in zip(olds, news, strict=True)]
    moved = [_within(w, b[:, None]) for w, b in zip(wanted, bounds, strict=True)]
    # A bias has no bound as a whole.
    kernels = ops.convert_to_tensor([len(w.shape) >= 2 for w in after])
    whole = ops.where(kernels, radius * roots, float("inf"))
    root = ops.maximum(_root_mean_squares(packed, moved, sizes), 1e-30)
    shares = packed.distribute(ops.minimum(1.0, whole / root))
    moved = [m * share[:, None] for m, share in zip(moved, shares, strict=True)]
    gain = ops.abs(inner(packed, moved))
    bound = control["decrease"] * loss
    steep = (loss > 0) & (gain > bound)
    share = ops.where(steep, bound / ops.where(steep, gain, 1.0), 1.0)
    less = [ops.any(ops.not_equal(m, w)) for m, w in zip(moved, wanted, strict=True)]
    held = ops.any(ops.stack(less)) | steep
    weights = [
        ops.where(held, old + change * share, new)
        for old, new, change in zip(olds, news, moved, strict=True)
    ]
    return packed.split(weights), held


def fraction_cut(before, made, left):
    """Returns the fraction of the norm of an update that was cut off, scalar float32.

    Args:
        before: List of V tensors, the weights before the update.
        made: List of V tensors, the weights after the optimizer's update.
        left: List of V tensors, the weights that the update was limited to.
    """
    packed = Packed(made)
    olds = packed.join(before)
    wanted, moved = (
        _norm([new - old for old, new in zip(olds, packed.join(news), strict=True)])
        for news in (made, left)
    )
    fraction = moved / ops.maximum(wanted, 1e-30)
    fraction = ops.where(ops.isfinite(fraction), fraction, 0.0)
    return ops.clip(1.0 - fraction, LEAST_CUT, 1.0)


def others_before(runner, application):
    """Returns what else an update changes: P moving averages, and P momentums.

    They are those before the update, None where there is none.
    """
    result = []
    for find in (averages_of, momentums_of):
        found = find(application.optimizer, application.trained)
        values = iter(runner.copies([variable for variable, *_ in filter(None, found)]))
        result.append([next(values) if each else None for each in found])
    return result


def hold(runner, state, application, before, others, decision):
    """Limits an update to the trust region; momentums and moving averages follow it.

    Returns the fraction of the norm of the update that was cut off, a scalar float32.
    """
    variables, optimizer = application.trained, application.optimizer
    averages = averages_of(optimizer, variables)
    momentums = momentums_of(optimizer, variables)
    averaged, earlier = others
    targets = [*variables, *(pair[0] for pair in averages if pair)]
    targets += [own.variable for own in momentums if own]
    loss = application.loss
    loss = ops.convert_to_tensor(float("nan"), "float32") if loss is None else loss

    def inner(packed, moved):
        return sparse.inner(application.summed, packed, moved)

    def limited():
        made = values_of(variables)
        within = partial(limit, inner=inner, loss=loss, control=state.control)
        weights, values, held = made, [], False
        if any(momentums):
            weights, values, held = momentum.limit_contributions(
                momentums, earlier, before, made, within
            )
        weights, more = within(before, weights)
        cut = ops.where(held | more, fraction_cut(before, made, weights), 0.0)
        pairs = zip(weights, variables, strict=True)
        weights = [constrained(ops.cast(w, v.dtype), v) for w, v in pairs]
        corrected = [
            old + ops.cast(pair[1], old.dtype) * (ops.cast(weight, old.dtype) - old)
            for pair, old, weight in zip(averages, averaged, weights, strict=True)
            if pair
        ]
        return [*weights, *corrected, *values], cut

    wanted = state.responding & ~state.halted & ~decision.skip & ~decision.overflow
    if application.window.partial is not None:
        wanted = wanted & ~application.window.partial
    return runner.replace_if(wanted, targets, limited)


def _roots(packed, weights, sizes):
    """Returns the root mean square of each variable's kernel, [V], at least `FLOOR`.

    For a vector, it is that of the kernel directly before it or, if there is none, the
    smallest one of all kernels.
    """
    ranks = [len(shape) for shape in packed.shapes]
    kernels = [place for place, rank in enumerate(ranks) if rank >= 2]
    if not kernels:
        return ops.full((len(ranks),), FLOOR)
    own = ops.maximum(_root_mean_squares(packed, weights, sizes), FLOOR)
    least = ops.min(ops.take(own, kernels, axis=0))
    sources = [
        place if rank >= 2 else place - 1 if place - 1 in kernels else -1
        for place, rank in enumerate(ranks)
    ]
    found = ops.take(own, [max(source, 0) for source in sources], axis=0)
    known = ops.convert_to_tensor([source >= 0 for source in sources])
    return ops.where(known, found, least)


def _within(change, bound):
    """Clips each element of a change to ±`bound`; NaN becomes 0."""
    change = ops.where(ops.isnan(change), 0.0, change)
    return ops.maximum(ops.minimum(change, bound), -bound)


def _norm(matrices):
    """Returns the norm of all elements of a list of matrices, a scalar."""
    return ops.sqrt(ops.sum(ops.concatenate([row_squares(m) for m in matrices])))


def _root_mean_squares(packed, matrices, sizes):
    """Returns the root mean square of each variable, a tensor [V]."""
    return ops.sqrt(packed.total([row_squares(m) for m in matrices]) / sizes)
