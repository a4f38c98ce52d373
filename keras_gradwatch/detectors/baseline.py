"""A spike of a positive quantity against its running baseline, on the log scale."""

import numpy as np
from keras import ops

from keras_gradwatch.detectors import running
from keras_gradwatch.detectors.base import AHEAD, BELOW, Detector, whole_step
from keras_gradwatch.methods import number, whole

# A spike is this many times the largest of the newest steps, whatever their spread.
PEAK = 100.0
# Steps that must have been seen before any may be a spike.
FIRST = 3
# Steps after which the largest of the last ones is that of the last ones but these.
SPAN = 100
# Up to this a value says nothing of the level: a satisfied hinge loss has no gradient
# at all, and its logarithm would drag the baseline to nowhere.
TINY = 1e-30


class LogBaseline(Detector):
    """Base of the detectors that compare a quantity with its running log-scale range.

    With ℓ = log of the quantity, and μ, σ the running mean and standard deviation of
    ℓ, a step trips if `ℓ − μ > max(z·σ, log factor)` once `warmup` steps were seen;
    and from the fourth step on if the quantity is more than `PEAK` times the largest
    of the newest 100 to 200 steps, however widely they were spread.

    A spike moves the mean by no more than that distance, and the deviation not at all;
    in warm-up it is not taken in. A lasting shift is no alarm for ever: after
    `patience` spikes in a row the baseline begins anew at the new level. Non-finite
    values are never taken in, nor are zeros, which are not counted as steps.

    Args:
        z: Standard deviations above the mean, > 0.
        factor: A spike is at least this many times the baseline, > 1.
        decay: Decay of the running moments per step, 0 to 1; 0.97 is about 33 steps.
        warmup: Steps before the first judgement, >= 1.
        patience: After this many spikes in a row the new level is the baseline, >= 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(self, z=6.0, factor=10.0, decay=0.97, warmup=20, patience=5):
        self.settings = {
            "z": number(self, "z", z, above=0),
            "factor": number(self, "factor", factor, above=1),
            "decay": number(self, "decay", decay, at_least=0, below=1),
            "warmup": whole(self, "warmup", warmup, at_least=1),
            "patience": whole(self, "patience", patience, at_least=1),
        }

    # What `quantity` is the magnitude of, and `lines` about: `global_norm` or `loss`.
    judged = None

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "quantity" in vars(cls) and "judged" not in vars(cls):
            # Another quantity: lines of the norm or the loss say nothing about it.
            cls.lines = Detector.lines

    def quantity(self, measured):
        """The scalar that is judged, >= 0, NaN where it is not known."""
        raise NotImplementedError

    def initial_state(self, num_variables):
        """Moments, number and peaks of the values seen, and spikes in a row."""
        del num_variables
        names = ("mean", "variance", "seen", "streak", "peak", "last_peak")
        return {name: np.float32(0.0) for name in names}

    def detect(self, measured, state, settings):
        value = self.quantity(measured)
        usable = measured.finite & ops.isfinite(value) & (value > TINY)
        level = ops.log(ops.maximum(value, TINY))
        seen, mean, variance = state["seen"], state["mean"], state["variance"]
        limit = ops.maximum(
            settings["z"] * ops.sqrt(variance), ops.log(settings["factor"])
        )
        warm = seen >= settings["warmup"]
        beyond = warm & ~ops.less_equal(level - mean, limit)
        peak = ops.maximum(state["peak"], state["last_peak"])
        spike = usable & (beyond | ((seen >= FIRST) & (value > PEAK * peak)))
        streak_before = state["streak"]
        streak = ops.where(spike, streak_before + 1, 0.0)
        anew = streak >= settings["patience"]

        weight = running.weight(seen + 1, settings["decay"])
        reach = ops.where(warm, limit, float("inf"))
        taken = ops.clip(level - mean, -reach, reach)
        spread = (1 - weight) * (variance + weight * ops.square(taken))
        highest = ops.maximum(ops.where(spike, 0.0, value), state["peak"])
        turn = ops.equal(ops.mod(seen, SPAN), SPAN - 1)
        peak = ops.where(turn, 0.0, highest)
        last_peak = ops.where(turn, highest, state["last_peak"])
        new = {
            "mean": ops.where(anew, level, mean + weight * taken),
            "variance": ops.where(spike, variance, spread),
            "seen": seen + 1,
            "peak": ops.where(anew, value, peak),
            "last_peak": ops.where(anew, 0.0, last_peak),
        }
        take = usable & (warm | ~spike | anew)
        state = {name: ops.where(take, new[name], state[name]) for name in new}
        streak = ops.where(anew, 0.0, streak)
        state["streak"] = ops.where(usable, streak, streak_before)
        return whole_step(spike, value, ops.exp(mean)), state

    def lines(self, measured, state, settings):
        """A range around the mean, once there is one; see `Detector.lines`.

        With c what is left of the moments after all steps that the lines hold for, and
        r = max(z·σ·√c, log factor) / (2 − c): as long as |ℓ − μ| ≤ r, the mean moves by
        no more than (1 − c)·r, and no step comes as far from it as the limit is then.
        """
        del measured
        seen = state["seen"]
        left = ops.prod(1 - running.weights(seen, settings["decay"]))
        limit = ops.maximum(
            settings["z"] * ops.sqrt(left * state["variance"]),
            ops.log(settings["factor"]),
        )
        reach = limit / (2 - left)
        # Where the peaks change places before long, only one of them stays.
        turns = ops.mod(seen, SPAN) >= SPAN - AHEAD
        peak = ops.maximum(state["peak"], ops.where(turns, 0.0, state["last_peak"]))
        top = ops.minimum(ops.exp(state["mean"] + reach), PEAK * peak)
        sure = (seen >= settings["warmup"]) & running.usable(seen, settings["decay"])
        low = ops.exp(state["mean"] - reach) / BELOW
        return {self.judged: (low, ops.where(sure, top * BELOW, 0.0))}

    def advance(self, steps, state, settings):
        """The range after values within it; see `Detector.advance`."""
        value, seen = self.quantity(steps), state["seen"]
        levels = ops.log(value)
        weights = running.weights(seen, settings["decay"], steps.there)
        means = running.means(state["mean"], levels, weights)
        before = ops.concatenate([state["mean"][None], means[:-1]])
        spread = running.spread(state["variance"], levels - before, weights)
        number = seen + ops.arange(AHEAD, dtype="float32")
        turn = ops.equal(ops.mod(number, SPAN), SPAN - 1) & steps.there
        turned = ops.any(turn)
        # Up to the turn, and after it.
        value = ops.where(steps.there, value, 0.0)
        old = ops.cumsum(ops.cast(turn, "float32")) - ops.cast(turn, "float32") < 0.5
        highest = ops.maximum(state["peak"], ops.max(ops.where(old, value, 0.0)))
        newest = ops.max(ops.where(old, 0.0, value))
        return {
            "mean": means[-1],
            "variance": spread,
            "seen": seen + steps.count,
            "streak": ops.zeros_like(seen),
            "peak": ops.where(turned, newest, highest),
            "last_peak": ops.where(turned, highest, state["last_peak"]),
        }


def spike_words(what, value, baseline):
    """Words such as `the loss is 120, 40 times its baseline 3`."""
    times = f", {value / baseline:.3g} times" if baseline > 0 else ", against"
    return f"{what} is {value:.3g}{times} its baseline {baseline:.3g}"
