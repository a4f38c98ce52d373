"""The trust region on the host: its settings, and its radius."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrustRegion:
    """The limits of an update while a run is in trouble.

    Formula: with Δ the update of a variable, w its weights, rms(w) their root mean
    square, at least 0.05 (of a vector: that of the kernel directly before it or, if
    there is none, the smallest one), r the radius, g the gradient, L the loss:

    1. `Δᵢ ← min(max(Δᵢ, −e·r·rms(w)), e·r·rms(w))`, each element (e = `element`);
    2. `Δ ← Δ · min(1, r·‖w‖ / ‖Δ‖)`, each kernel;
    3. `Δ ← Δ · min(1, d·L / |Σ g·Δ|)`, all variables together (d = `decrease`), where
       the loss is known and above 0: no step aims far below a loss of zero.

    Every `window` steps the mean log loss is compared with the best so far. If it is no
    better although most updates were limited, the radius and the learning rate are
    multiplied by `factor`, until the radius is `least`. The trust region ends after
    `quiet` steps in which no update was limited.

    Attributes:
        radius: Fraction of a kernel's norm that one update may change.
        element: Largest change of one element, in units of radius · rms(w).
        decrease: Largest decrease of the loss that an update may aim at, in units of
            the loss.
        least: Smallest radius.
        window: Steps between two checks of the loss.
        factor: Factor by which radius and learning rate are multiplied.
        quiet: Steps without a limited update after which the trust region ends.

    Reference: (2) is the trust ratio of LARS (You et al. 2017, arXiv 1708.03888) as a
    bound; (3) the bounded stochastic Polyak step (Loizou et al. 2021, arXiv
    2002.10542) with an optimal loss of 0; the radius follows the loss as in
    trust-region methods (Conn, Gould and Toint 2000).
    """

    radius: float = 0.02
    element: float = 2.0
    decrease: float = 3.0
    least: float = 0.0005
    window: int = 20
    factor: float = 0.5
    quiet: int = 100

    def initial_state(self):
        """Returns the radius, the step until which it holds, and the known losses."""
        return {
            "radius": self.radius,
            "until": -1.0,
            "level": 0.0,
            "seen": 0.0,
            "held": 0.0,
            "best": math.inf,
        }

    def tightened(self, state, factor, until):
        """Returns the state of a rewound run, its radius multiplied by `factor`."""
        radius = max(state["radius"] * factor, self.least)
        # What was seen of the loss so far is of the run that went wrong.
        return {**self.initial_state(), "radius": radius, "until": float(until)}

    def advance(self, state, step, held, loss):
        """Adds a step to `state`; returns whether a window ends, and has stalled."""
        if math.isfinite(loss):
            state["level"] += level(loss)
            state["seen"] += 1
        state["held"] += held
        if held:
            state["until"] = step + 1 + self.quiet
        if state["seen"] < self.window:
            return False, False
        mean = state["level"] / state["seen"]
        most = state["held"] >= 0.5 * self.window
        stalled = most and not mean < state["best"]
        state["best"] = min(mean, state["best"])
        state["level"] = state["seen"] = state["held"] = 0.0
        return True, stalled

    def shrink(self, state):
        """Shrinks the radius in `state`; returns the factor of the learning rate.

        It is 1 at the smallest radius: else the learning rate would go on falling.
        """
        if state["radius"] <= self.least:
            return 1.0
        state["radius"] = max(state["radius"] * self.factor, self.least)
        return self.factor


def level(loss):
    """Returns the log of a loss, continued below zero so that less is always lower."""
    return math.log(max(loss, 1e-12)) if loss > 0 else -28.0 - math.asinh(-loss)
