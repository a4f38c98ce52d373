"""The published methods in NumPy, float64, written from their papers.

Each is made with the method's numbers, and then called once a step with a list of
gradients and a list of weights, all dense; it returns the gradients that it makes.
"""

import numpy as np


def norm(gradients):
    return np.sqrt(sum((g**2).sum() for g in gradients))


def to_norm(gradients, limit):
    """All gradients together scaled to the norm `limit`."""
    return [g * (limit / norm(gradients)) for g in gradients]


def units(array):
    """Norm of each unit: what feeds one output, or a whole vector."""
    if max(array.shape, default=1) == array.size:
        return np.sqrt((array**2).sum())
    return np.sqrt((array**2).reshape(-1, array.shape[-1]).sum(0))


class GlobalNorm:
    def __init__(self, limit):
        self.limit = limit

    def __call__(self, gradients, weights):
        return to_norm(gradients, min(norm(gradients), self.limit))


class AdaptiveGradientClip:
    """Brock et al. 2021, equation 3."""

    def __init__(self, clipping=0.01, eps=1e-3):
        self.clipping, self.eps = clipping, eps

    def __call__(self, gradients, weights):
        changed = []
        for g, w in zip(gradients, weights, strict=True):
            limit = self.clipping * np.maximum(units(w), self.eps)
            size = np.maximum(units(g), 1e-300)
            changed.append(g * np.minimum(1.0, limit / size))
        return changed


class AutoClip:
    """Seetharaman et al. 2020, algorithm 1; `window`: how much of it counts."""

    def __init__(self, percentile=10.0, window=None):
        self.percentile, self.window = percentile, window or 10**9
        self.history = []

    def __call__(self, gradients, weights):
        self.history.append(norm(gradients))
        recent = self.history[-self.window :]
        limit = np.percentile(recent, self.percentile)
        return to_norm(gradients, min(limit, norm(gradients)))


class ZClip:
    """Kumar et al. 2025, algorithm 1."""

    def __init__(self, z=2.5, alpha=0.97, warmup=25):
        self.z, self.alpha, self.warmup = z, alpha, warmup
        self.first = []

    def __call__(self, gradients, weights):
        size = norm(gradients)
        if len(self.first) < self.warmup:
            self.first.append(size)
            self.mean, self.variance = np.mean(self.first), np.var(self.first)
            return gradients
        deviation = np.sqrt(self.variance)
        z = (size - self.mean) / (deviation + 1e-6)
        if z > self.z:
            size = self.mean + self.z * deviation / (z / self.z)
        self.mean = self.alpha * self.mean + (1 - self.alpha) * size
        spread = (size - self.mean) ** 2
        self.variance = self.alpha * self.variance + (1 - self.alpha) * spread
        return to_norm(gradients, size)


class AdaGC:
    """Wang et al. 2025, algorithm 1."""

    def __init__(self, factor=1.05, decay=0.98, warmup=100, global_clipnorm=1.0):
        self.factor, self.decay = factor, decay
        self.warmup, self.limit = warmup, global_clipnorm
        self.levels, self.steps = None, 0

    def __call__(self, gradients, weights):
        self.steps += 1
        if self.steps <= self.warmup:
            changed = to_norm(gradients, min(norm(gradients), self.limit))
            sizes = [norm([g]) for g in changed]
            levels = sizes if self.levels is None else self.levels
            self.levels = list(np.minimum(levels, sizes))
            return changed
        changed = []
        for i, g in enumerate(gradients):
            g = to_norm([g], min(norm([g]), self.factor * self.levels[i]))[0]
            self.levels[i] *= self.decay
            self.levels[i] += (1 - self.decay) * norm([g])
            changed.append(g)
        return changed


class Centralize:
    """Yong et al. 2020, equation 1, in Keras's layout; `sparse` ones stay."""

    def __init__(self, sparse=()):
        self.sparse = sparse

    def __call__(self, gradients, weights):
        return [
            g - g.reshape(-1, g.shape[-1]).mean(0)
            if g.ndim > 1 and i not in self.sparse
            else g
            for i, g in enumerate(gradients)
        ]


class NormalizeCentered:
    """(g − mean) / ‖g − mean‖; `sparse` ones are not centered."""

    def __init__(self, sparse=()):
        self.sparse = sparse

    def __call__(self, gradients, weights):
        moved = [
            g - (0 if i in self.sparse else g.mean()) for i, g in enumerate(gradients)
        ]
        return [g / norm([g]) for g in moved]


class Chain:
    def __init__(self, *members):
        self.members = members

    def __call__(self, gradients, weights):
        for member in self.members:
            gradients = member(gradients, weights)
        return gradients
