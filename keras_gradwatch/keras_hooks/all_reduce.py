"""Saving an optimizer the all-reduce of gradients that are summed already.

Under a strategy the gradients are summed over the replicas before they are measured,
and Keras's `apply` sums them once more. Where it gets to its sum with the very tensors
that were summed here, it is given that sum. Where it made others of them (a clip set on
the optimizer, a loss scale), it sums those, and that costs a second all-reduce.
"""

# The private method in which Keras's optimizers sum over the replicas. Where it is
# gone, or a subclass has another way, every step pays for two all-reduces.
HOOK = "_all_reduce_sum_gradients"

_sums: dict = {}  # id(gradient) -> (gradient, its sum), while a step is traced


def remember(gradients, sums):
    """Notes the sums of a replica's own gradients.

    Args:
        gradients: List of tensors and `IndexedSlices`.
        sums: Their sums over the replicas, in the same order.
    """
    for gradient, total in zip(gradients, sums, strict=True):
        _sums[id(gradient)] = gradient, total


def forget(gradients):
    """Forgets what was noted of `gradients`."""
    for gradient in gradients:
        _sums.pop(id(gradient), None)


def reducing(optimizer, reduce):
    """What stands in for the `HOOK` of `optimizer`, whose own one is `reduce`."""
    del optimizer

    def stand_in(grads_and_vars):
        pairs = list(grads_and_vars)
        known = [_sums.get(id(gradient)) for gradient, _ in pairs]
        if all(known):
            return [(k[1], v) for k, (_, v) in zip(known, pairs, strict=True)]
        return reduce(pairs)

    return stand_in
