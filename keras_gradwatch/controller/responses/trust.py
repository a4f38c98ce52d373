"""The trust region on the host: its settings, and its radius."""

import math

from keras_gradwatch.methods import Method, number, whole


class TrustRegion(Method):
    """The limits of an update while a run is in trouble.

    Formula: with Δ the update of a variable, w its weights, rms(w) their root mean
    square (of a bias: that of its kernel), r the radius, g the gradient, L the loss:

    1. `Δᵢ ← min(max(Δᵢ, −e·r·rms(w)), e·r·rms(w))`, each element (e = `element`);
    2. `Δ ← Δ · min(1, r·‖w‖ / ‖Δ‖)`, each kernel;
    3. `Δ ← Δ · min(1, d·L / |Σ g·Δ|)`, all variables together (d = `decrease`), where
       the loss is known and above 0: no step aims far below a loss of zero.

    Every `window` steps the mean log loss is compared with the best so far. If it is no
    better although most updates were limited, the radius and the learning rate are
    multiplied by `shrink`, until the radius is `least`. The trust region ends after
    `quiet` steps in which no update was limited.

    Args:
        radius: Fraction of a kernel's norm that one update may change, > 0. Defaults
            to `0.02`.
        element: Largest change of one element, in units of radius · rms(w), >= 1.
            Defaults to `2.0`.
        decrease: Largest decrease of the loss that an update may aim at, in units of
            the loss, > 0. Defaults to `3.0`.
        least: Smallest radius, > 0. Defaults to `0.0005`.
        window: Steps between two checks of the loss, >= 1. Defaults to `20`.
        shrink: Factor by which radius and learning rate are multiplied, > 0 and < 1.
            Defaults to `0.5`.
        quiet: Steps without a limited update after which the trust region ends, >= 1.
            Defaults to `100`.

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

    def initial_state(self):
        """The radius, until when it holds, and what is known of the loss."""
        return {
            "radius": self.settings["radius"],
            "until": -1.0,
            "level": 0.0,
            "seen": 0.0,
            "held": 0.0,
            "best": math.inf,
        }

    def tightened(self, state, factor, until):
        """The state from which a run continues that was rewound.

        Args:
            state: Dict of floats.
            factor: What the radius is multiplied by.
            until: The step until which updates are held.
        """
        radius = max(state["radius"] * factor, self.settings["least"])
        # What was seen of the loss so far is of the run that went wrong.
        return {**self.initial_state(), "radius": radius, "until": float(until)}

    def advance(self, state, step, held, loss):
        """Takes in one step under the trust region; updates `state` in place.

        Args:
            state: Dict of floats.
            step: The step.
            held: Whether its update was held.
            loss: Its loss, NaN where it is not known.

        Returns:
            Whether this step ends a window, and whether the run has stalled in it.
        """
        settings = self.settings
        if math.isfinite(loss):
            state["level"] += level(loss)
            state["seen"] += 1
        state["held"] += held
        if held:
            state["until"] = step + 1 + settings["quiet"]
        if state["seen"] < settings["window"]:
            return False, False
        mean = state["level"] / state["seen"]
        most = state["held"] >= 0.5 * settings["window"]
        stalled = most and not mean < state["best"]
        state["best"] = min(mean, state["best"])
        state["level"] = state["seen"] = state["held"] = 0.0
        return True, stalled

    def shrink(self, state):
        """Makes the radius smaller; updates `state` in place.

        Returns:
            What the learning rate is to be multiplied by: 1 where the radius is the
            least one, since a learning rate that is cut without it would fall forever.
        """
        settings = self.settings
        if state["radius"] <= settings["least"]:
            return 1.0
        state["radius"] = max(state["radius"] * settings["shrink"], settings["least"])
        return settings["shrink"]


def level(loss):
    """The log of a loss; below zero it continues, so that less is always lower."""
    return math.log(max(loss, 1e-12)) if loss > 0 else -28.0 - math.asinh(-loss)
