"""Running means over several steps at once: what they are after the last of them.

With weights w, a running mean is m ← (1 − w)·m + w·x in each step. Over several steps,
with c the running product of 1 − w, it is c·(m + Σ w·x / c).
"""

from keras import ops

from keras_gradwatch.detectors.base import AHEAD

# With less decay than this, the product leaves the range in which it can be divided by.
LEAST_DECAY = 0.5


def weight(number, decay):
    """The weight of value `number`, from 1, in a running mean; of any shape.

    A plain average while values are few, an exponential window from then on.
    """
    return ops.maximum(1 / number, 1 - decay)


def weights(seen, decay, there=None):
    """The weights of the next `AHEAD` values, tensor [AHEAD]; see `weight`.

    Args:
        seen: Scalar float32, values so far.
        decay: Scalar float32, of the window.
        there: Tensor [AHEAD], bool, which of the values there are; None: all.
    """
    number = seen + ops.arange(1, AHEAD + 1, dtype="float32")
    of_all = weight(number, decay)
    return of_all if there is None else ops.where(there, of_all, 0.0)


def usable(seen, decay):
    """Whether the functions here can be used after `seen` values, scalar bool."""
    return (seen >= 1) & (decay >= LEAST_DECAY)


def means(before, values, weights):
    """The running mean after each of several values, tensor [K] or [K, M].

    Args:
        before: Scalar or tensor [M], the mean before the first one.
        values: Tensor [K] or [K, M].
        weights: Tensor [K], 0 for a value that does not count.
    """
    left = ops.cumprod(1 - weights)
    if len(values.shape) > 1:
        left, weights = left[:, None], weights[:, None]
    return left * (before + ops.cumsum(weights * values / left, axis=0))


def spread(before, distances, weights):
    """The running variance after all of several values, a scalar.

    Args:
        before: Scalar, the variance before the first one.
        distances: Tensor [K], of each value from the mean before it.
        weights: Tensor [K], 0 for a value that does not count.
    """
    left = ops.cumprod(1 - weights)
    earlier = left / (1 - weights)
    return left[-1] * (before + ops.sum(weights * ops.square(distances) / earlier))
