"""A spike of a positive quantity against its running baseline, on the log scale."""

import math

import numpy as np

from keras_gradwatch.detectors import running
from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import number, whole

# A spike is this many times the largest of the newest steps, whatever their spread.
PEAK = 100.0
# Steps before that rule applies.
FIRST = 3
# Steps from which it is the upper quartile during warm-up, instead of the largest one.
QUARTILE_FIRST = 8
# Length of a window for the largest step; the last full window counts, too.
WINDOW = 100
# Spikes apart from each other after which such a spike is usual; how many times the
# largest of them a value may then be; and how many times the next of them may be.
RECURRENT, ROOM, GROWTH = 3, 2.0, 4.0
# Up to this a value says nothing about the level: a hinge loss that is satisfied has
# no gradient, and its logarithm would move the baseline to nowhere.
TINY = 1e-30
# Above this, `math.exp` overflows.
LARGEST_EXPONENT = 700.0


class LogBaseline(Detector):
    """Base of the detectors that compare a quantity with its running log-scale range.

    Formula: with ℓ = log of the quantity, and μ, σ the running mean and standard
    deviation of ℓ, a step trips if `ℓ − μ > max(z·σ, log factor)` once `warmup` steps
    have been seen; and from the fourth step on if the quantity is more than 100 times
    the largest of the newest 100 to 200 steps, however large σ is.

    After warm-up, the limit is at least `factor` times the largest of the first
    `warmup` steps: a batch that the model has yet to learn, such as one with a rare
    class, may be as far off as the first batches were. A spike below it trips, but its
    update is not skipped.

    Spikes that recur are part of the data, such as rare targets of a heavy-tailed
    distribution. After three of them, apart from each other and each at most
    `reach_of_data` times the largest of the first steps, values up to twice the largest
    of them no longer trip; a spike of two to four times the largest still trips, and
    becomes the new largest.

    During warm-up, from the ninth step on, the upper quartile replaces the largest one.
    At the end of warm-up, mean, deviation and largest step are computed from the steps
    that are not spikes by this rule, so early bad batches do not hide later ones.

    A spike moves the mean by no more than that limit, and does not change the
    deviation; during warm-up it is ignored. A lasting shift does not trip forever:
    after `patience` spikes in a row the mean is reset to the new level. The first step
    of a later `fit` never trips, because its data or weights may be different; a value
    that would be a spike resets the baseline. Zeros and non-finite values are ignored.

    The arguments are those of `ZScore`.
    """

    # What is compared: "global_norm" or "loss".
    judged = "global_norm"
    # Times the largest of the first steps up to which spikes that recur are data.
    reach_of_data = 1e3

    def __init__(
        self,
        z: float = 6.0,
        factor: float = 10.0,
        decay: float = 0.97,
        warmup: int = 20,
        patience: int = 5,
    ) -> None:
        self.settings = {
            "z": number(self, "z", z, above=0),
            "factor": number(self, "factor", factor, above=1),
            "decay": number(self, "decay", decay, at_least=0, below=1),
            "warmup": whole(self, "warmup", warmup, at_least=1),
            "patience": whole(self, "patience", patience, at_least=1),
        }

    @property
    def patience(self):
        return self.settings["patience"]

    def initial_state(self, num_variables):
        """Returns moments, number and peaks of the values seen, and spikes in a row."""
        names = ("mean", "variance", "seen", "streak", "peak", "last_peak", "first")
        names += ("start", "recurred", "usual")
        early = np.zeros(self.settings["warmup"])
        return {**dict.fromkeys(names, 0.0), "early": early}

    def begin_fit(self, state):
        """Lets the first step of a `fit` pass."""
        state["first"] = 1.0

    def restart(self, state, num_variables):
        """Resets the state, except for the spikes that recur."""
        kept = {name: state[name] for name in ("recurred", "usual")}
        state.update(self.initial_state(num_variables) | kept)

    def limits(self, state):
        """Returns the range from 0 up to the smallest spike that is skipped."""
        if state["first"]:
            return {self.judged: (0.0, math.inf)}
        start = self.settings["factor"] * state["start"]
        return {
            self.judged: (0.0, max(self._range(state), ROOM * _usual(state), start))
        }

    def _range(self, state):
        """Returns the value up to which nothing is a spike, whatever recurs."""
        high, peak = math.inf, max(state["peak"], state["last_peak"])
        if state["seen"] >= self.settings["warmup"]:
            exponent = state["mean"] + self._reach(state)
            high = math.exp(exponent) if exponent < LARGEST_EXPONENT else math.inf
        if QUARTILE_FIRST <= state["seen"] < self.settings["warmup"]:
            known = state["early"][: int(state["seen"])]
            peak = math.exp(np.quantile(known, 0.75))
        if state["seen"] >= FIRST and peak > 0:
            high = min(high, PEAK * peak)
        return high

    def observe(self, step, state):
        value = step.quantity(self.judged)
        first, state["first"] = state["first"], 0.0
        spike = self.crossed(step, state) is not None
        known = self._range(state)
        if value <= self.settings["factor"] * state["start"]:
            spike = spike or value > max(known, ROOM * _usual(state))
        odd = spike or value > known  # what recurs does not widen the range
        if first and spike:
            self.restart(state, 0)
            spike = odd = False
        verdict = Verdict(None, value, math.exp(state["mean"])) if spike else None
        if not TINY < value < math.inf:
            return verdict
        settings = self.settings
        level, mean, seen = math.log(value), state["mean"], state["seen"]
        state["streak"] = state["streak"] + 1 if spike else 0.0
        restart = state["streak"] >= settings["patience"]
        warm = seen >= settings["warmup"]
        if spike and not warm and not restart:
            return verdict
        farthest = max(self.reach_of_data * state["start"], GROWTH * _usual(state))
        if state["streak"] == 1 and value <= farthest:
            state["recurred"] += 1
            state["usual"] = max(state["usual"], value)
        state["seen"] = seen + 1
        if restart:
            state |= {"mean": level, "streak": 0.0, "peak": value, "last_peak": 0.0}
        if not warm:
            state["early"][int(seen)] = level
        if restart:
            return verdict
        weight = running.weight(seen + 1, settings["decay"])
        distance = level - mean
        if warm:
            reach = self._reach(state)
            distance = max(-reach, min(distance, reach))
        state["mean"] = mean + weight * distance
        if not odd:
            state["variance"] = (1 - weight) * (
                state["variance"] + weight * distance**2
            )
            state["peak"] = max(state["peak"], value)
        if seen + 1 == settings["warmup"]:
            self._end_warmup(state)
        if seen % WINDOW == WINDOW - 1:
            state["last_peak"], state["peak"] = state["peak"], 0.0
        return verdict

    def _end_warmup(self, state):
        """Computes the baseline from those of the first values that are no spikes."""
        levels = state["early"]
        state["start"] = math.exp(levels.max())
        if len(levels) > QUARTILE_FIRST:
            levels = levels[levels <= np.quantile(levels, 0.75) + math.log(PEAK)]
            state["mean"], state["variance"] = float(levels.mean()), float(levels.var())
            state["start"] = state["peak"] = math.exp(levels.max())

    def _reach(self, state):
        """Returns how far above the mean a spike begins, on the log scale."""
        deviation = math.sqrt(state["variance"])
        return max(self.settings["z"] * deviation, math.log(self.settings["factor"]))


def _usual(state):
    """Returns the largest of the spikes that recur; 0 before there are enough."""
    return state["usual"] if state["recurred"] >= RECURRENT else 0.0


def spike_words(what, value, baseline):
    """Formats words such as `the loss is 120, 40 times its baseline of 3`."""
    times = f"{value / baseline:.3g} times" if baseline > 0 else "above"
    return f"{what} is {value:.3g}, {times} its baseline of {baseline:.3g}"
