"""The trust region on the device: an update is cut down to what can be trusted.

A step whose update goes beyond the trust bound is a run that is about to blow up,
whatever the optimizer. Putting its weights back only postpones that: the next update
is as large. So from then on each update is cut down to what can be trusted, in the
same step, and the region becomes smaller while the loss does not fall.
"""

from keras import ops

from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks.moving_average import averages_of
from keras_gradwatch.tensors import sparse
from keras_gradwatch.tensors.branch import traced_once
from keras_gradwatch.tensors.groups import Groups
from keras_gradwatch.train_step.updates import constrained

# Root mean square below which the weights of a kernel count as this large: one that
# begins at zero must be able to leave it.
FLOOR = 0.05


def limit(before, after, inner, loss, control):
    """What is left of an update.

    Args:
        before: List of V tensors, the weights before the update.
        after: List of V tensors, the weights that the optimizer made of them.
        inner: Function of `Groups` and the matrices of the V changes: the scalar Σ g·Δ.
        loss: Scalar float32, NaN where it is not known.
        control: Dict with the scalars `radius`, `element` and `decrease`.

    Returns:
        `(weights, held)`: V float32 tensors, and whether they are not `after`.
    """
    radius, groups = control["radius"], Groups(after)
    olds, news = groups.join(before), groups.join(after)
    roots = _roots(groups, olds)
    # A bias has no bound as a whole.
    kernels = ops.convert_to_tensor([len(w.shape) >= 2 for w in after])
    whole = ops.where(kernels, radius * roots, float("inf"))
    bounds = ops.stack([control["element"] * radius * roots, whole], axis=1)
    bounds = groups.distribute(bounds)
    pairs = zip(olds, news, bounds, strict=True)
    moved, less = zip(*[_cut(b - a, c) for a, b, c in pairs], strict=True)
    gain = ops.abs(inner(groups, moved))
    bound = control["decrease"] * loss
    steep = (loss > 0) & (gain > bound)
    share = ops.where(steep, bound / ops.where(steep, gain, 1.0), 1.0)
    held = ops.any(ops.stack(less)) | steep
    weights = [
        ops.where(held, old + cut * share, new)
        for old, new, cut in zip(olds, news, moved, strict=True)
    ]
    return groups.split(weights), held


def averages_before(runner, application):
    """The moving averages of the weights before an update, a list of P; None: none."""
    pairs = averages_of(application.optimizer, application.trained)
    values = iter(runner.copies([pair[0] for pair in pairs if pair]))
    return [next(values) if pair else None for pair in pairs]


def hold(runner, state, application, before, averaged, decision):
    """Cuts the update of an application down to the trust region.

    A moving average of the weights becomes that of what is left.

    Args:
        runner: `Runner` of the backend.
        state: `StepState`.
        application: `Application`.
        before: List of P tensors, the weights before the update.
        averaged: What `averages_before` gave.
        decision: `Decision`.

    Returns:
        Scalar bool, whether the update was cut down.
    """
    variables, optimizer = application.trained, application.optimizer
    averages = averages_of(optimizer, variables)
    targets = [*variables, *(pair[0] for pair in averages if pair)]
    loss = application.loss
    loss = ops.convert_to_tensor(float("nan"), "float32") if loss is None else loss

    def inner(groups, moved):
        return sparse.inner(application.summed, groups, moved)

    def limited():
        made = values_of(variables)
        weights, held = limit(before, made, inner, loss, state.control)
        pairs = zip(weights, variables, strict=True)
        weights = [constrained(ops.cast(w, v.dtype), v) for w, v in pairs]
        corrected = [
            old + ops.cast(pair[1], old.dtype) * (ops.cast(weight, old.dtype) - old)
            for pair, old, weight in zip(averages, averaged, weights, strict=True)
            if pair
        ]
        return [*weights, *corrected], held

    wanted = state.responding & ~state.halted & ~decision.skip & ~decision.overflow
    if application.window.partial is not None:
        wanted = wanted & ~application.window.partial
    return runner.replace_if(wanted, targets, limited)


def _roots(groups, weights):
    """Root mean squares: of a kernel; for a vector that of the kernel before it.

    Where there is none, the least of all.

    Args:
        groups: `Groups` of the V variables.
        weights: Their matrices [n, k].

    Returns:
        Tensor [V].
    """
    ranks = [len(shape) for shape in groups.shapes]
    kernels = [place for place, rank in enumerate(ranks) if rank >= 2]
    if not kernels:
        return ops.full((len(ranks),), FLOOR)
    own = groups.collect([_root_mean_square(w) for w in weights])
    own = ops.maximum(own, FLOOR)
    least = ops.min(ops.take(own, kernels, axis=0))
    sources = [
        place if rank >= 2 else place - 1 if place - 1 in kernels else -1
        for place, rank in enumerate(ranks)
    ]
    found = ops.take(own, [max(source, 0) for source in sources], axis=0)
    known = ops.convert_to_tensor([source >= 0 for source in sources])
    return ops.where(known, found, least)


@traced_once(2, 2)
def _cut(change, bounds):
    """Updates within their bounds, and whether any is less than it was.

    Args:
        change: Tensor [n, k].
        bounds: Tensor [n, 2]: the largest change of an element, and the largest root
            mean square of the whole.
    """
    most, whole = bounds[:, :1], bounds[:, 1]
    change = ops.where(ops.isnan(change), 0.0, change)
    cut = ops.maximum(ops.minimum(change, most), -most)
    size = ops.maximum(_root_mean_square(cut), 1e-30)
    cut = cut * ops.minimum(1.0, whole / size)[:, None]
    return cut, ops.any(ops.not_equal(cut, change))


def _root_mean_square(rows):
    return ops.sqrt(ops.mean(ops.square(rows), axis=1))
