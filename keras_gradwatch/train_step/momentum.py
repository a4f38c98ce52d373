"""The momentum of an optimizer, while updates are limited to a trust region."""

from keras import ops

from keras_gradwatch.backends.runner import values_of

# The least value of 1 − decay, which is divided by.
LEAST = 1e-3


def limit_contributions(momentums, earlier, before, made, limit):
    """Limits what the present gradients contribute to the momentums.

    Otherwise one huge gradient would determine the direction of all updates for many
    steps, however small the gradients are by then.

    Formula: with m the momentum, β its decay, c = m − β·m_earlier the contribution of
    the present gradients, and Δ the update, which is taken to be proportional to m in
    each element: `m ← β·m_earlier + s·c` and `Δ ← Δ·m/m_made`, where s is the fraction
    of an update of Δ·(c / m) / (1 − β) that is within the trust region. Contributions
    of the same direction then add up to the size of the trust region.

    Args:
        momentums: List of V `Momentum` after the update, None where there is none.
        earlier: List of V tensors, their values before it, or None.
        before: List of V tensors, the weights before the update.
        made: List of V tensors, the weights after it.
        limit: Function of two lists of V weights, before and after an update. It
            returns weights within the trust region, and a scalar bool, whether these
            differ from those after the update.

    Returns:
        V float32 weights, the new momentums of the variables that have one, and a
        scalar bool, whether anything was limited.
    """
    parts = [
        m and _Contribution(m, old, weight, after)
        for m, old, weight, after in zip(momentums, earlier, before, made, strict=True)
    ]
    wanted = [
        part.wanted if part else after for part, after in zip(parts, made, strict=True)
    ]
    within, limited = limit(before, wanted)
    weights, values = [], []
    for part, inside, after in zip(parts, within, made, strict=True):
        weight = ops.cast(after, "float32")
        if part:
            less = ops.where(limited, part.excess(inside), 0.0)
            values.append(ops.cast(part.made - less, part.dtype))
            weight = weight - part.scale * less
        weights.append(weight)
    return weights, values, limited


class _Contribution:
    """The contribution of the present gradients to the update of one variable."""

    def __init__(self, momentum, earlier, before, after):
        (made,) = values_of([momentum.variable])
        self.dtype = momentum.variable.dtype
        self.made = ops.cast(made, "float32")
        self.contribution = self.made - momentum.decay * ops.cast(earlier, "float32")
        self.before = ops.cast(before, "float32")
        self.scale = _ratio(ops.cast(after, "float32") - self.before, self.made)
        steady = max(1.0 - momentum.decay, LEAST)
        self.wanted = self.before + self.scale * self.contribution / steady

    def excess(self, within):
        """Returns what is too much of the contribution, for weights `within`."""
        share = _ratio(within - self.before, self.wanted - self.before)
        return (1.0 - ops.clip(share, 0.0, 1.0)) * self.contribution


def _ratio(one, other):
    """Returns the quotient of two tensors, 0 where the second is 0."""
    zero = ops.equal(other, 0.0)
    return ops.where(zero, 0.0, one / ops.where(zero, 1.0, other))
