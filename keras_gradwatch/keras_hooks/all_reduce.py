"""Avoids a second all-reduce of gradients that are already summed.

Under a strategy the gradients are summed over the replicas before they are measured,
and Keras's `apply` would sum them again. For the same tensors it gets the known sums;
what it derived from them (an optimizer's own clipping, a loss scale) is summed again.
"""

# The private method in which Keras's optimizers sum over the replicas. Where it is
# gone, or a subclass has another way, every step pays for two all-reduces.
HOOK = "_all_reduce_sum_gradients"

_sums: dict = {}  # id(gradient) -> (gradient, its sum), while a step is traced


def remember(gradients, sums):
    """Notes the sums over the replicas of a replica's own gradients."""
    for gradient, total in zip(gradients, sums, strict=True):
        _sums[id(gradient)] = gradient, total


def forget(gradients):
    """Drops the sums of `gradients`."""
    for gradient in gradients:
        _sums.pop(id(gradient), None)


def reducing(optimizer, reduce):
    """Returns the replacement for the `HOOK` of `optimizer`, originally `reduce`."""

    def stand_in(grads_and_vars):
        pairs = list(grads_and_vars)
        known = [_sums.get(id(gradient)) for gradient, _ in pairs]
        if all(known):
            return [(k[1], v) for k, (_, v) in zip(known, pairs, strict=True)]
        return reduce(pairs)

    return stand_in
