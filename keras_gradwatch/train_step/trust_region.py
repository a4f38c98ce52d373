"""The trust region: what an update may change, once one was far too large.

A step whose update goes beyond the trust bound is a run that is about to blow up,
whatever the optimizer. Putting its weights back only postpones that: the next update
is as large. So from then on each update is cut down to what can be trusted, in the
same step, and the region becomes smaller while the loss does not fall.
"""

import numpy as np
from keras import ops

from keras_gradwatch.backends.branch import traced_once
from keras_gradwatch.methods import Method, number, whole
from keras_gradwatch.train_step.groups import Groups

# Root mean square below which the weights of a kernel count as this large: one that
# begins at zero must be able to leave it.
FLOOR = 0.05


class TrustRegion(Method):
    """What an update may change while a run is in trouble.

    Formula: with Δ the update of a variable, w its weights, rms(w) their root mean
    square (of a bias: that of its kernel), r the radius, g the gradient, L the loss:

    1. `Δᵢ ← min(max(Δᵢ, −e·r·rms(w)), e·r·rms(w))`, each element (e = `element`);
    2. `Δ ← Δ · min(1, r·‖w‖ / ‖Δ‖)`, each kernel;
    3. `Δ ← Δ · min(1, d·L / |Σ g·Δ|)`, all variables together (d = `decrease`), where
       the loss is known and above 0: no step sets out for less than a loss of zero.

    Every `window` steps the mean log loss is compared with the best so far. Where it
    is no better although most updates were held, the radius and the learning rate are
    multiplied by `shrink`, until the radius is `least`. After `quiet` steps in which no
    update was held, none is held any more.

    Args:
        radius: Share of a kernel that one update may change, > 0.
        element: Largest change of one element, in units of radius · rms(w), >= 1.
        decrease: Largest decrease of the loss that an update may set out for, in units
            of the loss, > 0.
        least: The radius is never less than this, > 0.
        window: Steps between two looks at the loss, >= 1.
        shrink: What radius and rate are multiplied by, between 0 and 1.
        quiet: Steps without a held update after which the trouble is over, >= 1.

    Raises:
        ValueError: If an argument is out of its range.

    Reference: (2) is the trust ratio of LARS (You et al. 2017, arXiv 1708.03888) as a
    bound; (3) the bounded stochastic Polyak step (Loizou et al. 2021, arXiv
    2002.10542) with an optimal loss of 0; the radius follows the loss as in
    trust-region methods (Conn, Gould and Toint 2000).
    """

    def __init__(
        self,
        radius=0.02,
        element=2.0,
        decrease=3.0,
        least=0.0005,
        window=20,
        shrink=0.5,
        quiet=100,
    ):
        self.settings = {
            "radius": number(self, "radius", radius, above=0),
            "element": number(self, "element", element, at_least=1),
            "decrease": number(self, "decrease", decrease, above=0),
            "least": number(self, "least", least, above=0),
            "window": whole(self, "window", window, at_least=1),
            "shrink": number(self, "shrink", shrink, above=0, below=1),
            "quiet": whole(self, "quiet", quiet, at_least=1),
        }

    def initial_state(self, num_variables):
        """The radius, until when it holds, and what is known of the loss."""
        del num_variables
        state = dict.fromkeys(("level", "seen", "held"), np.float32(0))
        state["radius"] = np.float32(self.settings["radius"])
        state["until"] = np.float32(-1)
        state["best"] = np.float32(np.inf)
        return state

    def tightened(self, state, factor, until):
        """The state from which a run goes on that was taken back.

        Args:
            state: Dict of arrays.
            factor: What the radius is multiplied by.
            until: The step until which updates are held.
        """
        least = np.float32(self.settings["least"])
        radius = np.maximum(state["radius"] * np.float32(factor), least)
        # What was seen of the loss so far is of the run that went wrong.
        return {**self.initial_state(0), "radius": radius, "until": np.float32(until)}

    def limit(self, before, after, inner, loss, state, settings):
        """What is left of an update.

        Args:
            before: List of V tensors, the weights before the update.
            after: List of V tensors, the weights that the optimizer made of them.
            inner: Function of `Groups` and the matrices of the V changes: the scalar
                Σ g·Δ.
            loss: Scalar float32, NaN where it is not known.
            state: Dict of tensors, as `initial_state` declared them.
            settings: Dict of scalar tensors, as `settings` declared them.

        Returns:
            `(weights, held)`: V float32 tensors, and whether they are not `after`.
        """
        radius, groups = state["radius"], Groups(after)
        olds, news = groups.join(before), groups.join(after)
        roots = _roots(groups, olds)
        # A bias has no bound as a whole.
        kernels = ops.convert_to_tensor([len(w.shape) >= 2 for w in after])
        whole = ops.where(kernels, radius * roots, float("inf"))
        bounds = ops.stack([settings["element"] * radius * roots, whole], axis=1)
        bounds = groups.distribute(bounds)
        pairs = zip(olds, news, bounds, strict=True)
        moved, less = zip(*[_cut(b - a, c) for a, b, c in pairs], strict=True)
        gain = ops.abs(inner(groups, moved))
        bound = settings["decrease"] * loss
        steep = (loss > 0) & (gain > bound)
        share = ops.where(steep, bound / ops.where(steep, gain, 1.0), 1.0)
        held = ops.any(ops.stack(less)) | steep
        weights = [
            ops.where(held, old + cut * share, new)
            for old, new, cut in zip(olds, news, moved, strict=True)
        ]
        return groups.split(weights), held

    def advance(self, state, step, tripped, held, loss, settings):
        """The state after a step, and what becomes of the rate.

        Args:
            state: Dict of tensors.
            step: Scalar float32, the step.
            tripped: Scalar bool, whether its update was beyond the trust bound.
            held: Scalar bool, whether its update was held.
            loss: Scalar float32, NaN where it is not known.
            settings: Dict of scalar tensors.

        Returns:
            `(new state, factor of the rate)`.
        """
        onset = tripped & ~(state["until"] > step)
        known = ops.isfinite(loss)
        level = state["level"] + ops.where(known, _level(loss), 0.0)
        seen = state["seen"] + ops.where(known, 1.0, 0.0)
        count = state["held"] + ops.where(held, 1.0, 0.0)
        full = seen >= settings["window"]
        mean = level / ops.maximum(seen, 1.0)
        most = count >= 0.5 * settings["window"]
        stalled = full & most & ~(mean < state["best"])
        best = ops.where(full, ops.minimum(mean, state["best"]), state["best"])
        # A rate that is cut along with a radius that is not would never end falling.
        smaller = stalled & (state["radius"] > settings["least"])
        shrunk = ops.maximum(state["radius"] * settings["shrink"], settings["least"])
        over = onset | full
        new = {
            "radius": ops.where(smaller, shrunk, state["radius"]),
            "until": ops.where(held, step + 1 + settings["quiet"], state["until"]),
            "level": ops.where(over, 0.0, level),
            "seen": ops.where(over, 0.0, seen),
            "held": ops.where(over, 0.0, count),
            # What a run reached before its trouble is no yardstick for its way back.
            "best": ops.where(onset, float("inf"), best),
        }
        return new, ops.where(smaller, settings["shrink"], 1.0)


def _level(loss):
    """The log of a loss; below zero it goes on, so that less is always lower."""
    positive = ops.log(ops.maximum(loss, 1e-12))
    return ops.where(loss > 0, positive, -28.0 - ops.arcsinh(-loss))


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
