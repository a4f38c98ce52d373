"""Clipping spikes of the global norm, by its z-score."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.methods import flag, number, whole
from keras_gradwatch.policies.base import OFF_SCALE, Policy, scale_down

EPSILON = 1e-6  # beside the standard deviation, as published
LARGEST = 1e18  # larger norms count as this: its square is finite


@keras.saving.register_keras_serializable("keras_gradwatch")
class ZClip(Policy):
    """Clips the norm of all gradients together if its z-score indicates a spike.

    Formula: with `z = (‖g‖ − μ) / (σ + 1e-6)`, if `z > z*` the norm is clipped to `μ +
    z*·σ / (z / z*)`, so a larger spike is clipped to a smaller norm. μ and σ² are the
    running mean and variance of the clipped norm, with decay α. They start as the mean
    and the variance of the first `warmup` norms, which are not clipped.

    `robust` fixes three failures of the published rule:

    | event | published | robust |
    |---|---|---|
    | a spike in the warm-up | it dominates μ | it counts as 10 times the median |
    | a lasting shift upwards | every step is clipped to μ | μ and σ are reset |
    | a lasting drop by more than a factor of 10 | spikes are not clipped for a long \
time | μ and σ are reset |

    After `warmup` steps in a row that are all spikes or below μ / 10, μ and σ are reset
    to the last `warmup` norms. In runs without such events, both rules agree. Steps
    with non-finite gradients are ignored.

    State: `recent` [warmup], the newest norms before clipping, `seen` (up to `warmup`),
    `mean` μ, `variance` σ², and `streak`, the steps in a row that are off the baseline.

    Args:
        z: The threshold z*, > 0. Defaults to `2.5`.
        alpha: The decay α per step, >= 0 and < 1. Defaults to `0.97`, about 33 steps.
        warmup: Steps before the first clip, >= 2. Defaults to `25`.
        robust: Whether to use the robust rule; `False` for the published one. Defaults
            to `True`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.ZClip())
    ```

    Reference: Kumar et al. 2025, "ZClip: adaptive spike mitigation for LLM
    pre-training" (arXiv 2504.02507).
    """

    def __init__(
        self, z: float = 2.5, alpha: float = 0.97, warmup: int = 25, robust: bool = True
    ) -> None:
        self.settings = {
            "z": number(self, "z", z, above=0),
            "alpha": number(self, "alpha", alpha, at_least=0, below=1),
        }
        self.warmup = whole(self, "warmup", warmup, at_least=2)
        self.robust = flag(self, "robust", robust)

    def get_config(self):
        return {**self.settings, "warmup": self.warmup, "robust": self.robust}

    def initial_state(self, num_variables):
        """The newest norms, their number, mean and variance, and the streak."""
        names = ("seen", "mean", "variance", "streak")
        zeros = {name: np.float32(0.0) for name in names}
        return {"recent": np.zeros(self.warmup, "float32"), **zeros}

    def decide(self, measured, state, settings):
        norm = ops.minimum(measured.global_norm, LARGEST)
        mean, variance, seen = state["mean"], state["variance"], state["seen"]
        threshold, alpha = settings["z"], settings["alpha"]
        warm = seen >= self.warmup
        deviation = ops.sqrt(variance)
        z = (norm - mean) / (deviation + EPSILON)
        spike = warm & (z > threshold)
        severity = ops.where(spike, z / threshold, 1.0)
        limit = ops.where(spike, mean + threshold * deviation / severity, norm)

        new_mean = alpha * mean + (1 - alpha) * limit
        new_variance = alpha * variance + (1 - alpha) * ops.square(limit - new_mean)
        recent = ops.concatenate([state["recent"][1:], norm[None]])
        off = warm & (spike | (OFF_SCALE * norm < mean))
        streak = ops.where(off, state["streak"] + 1, 0.0)
        reset = ops.equal(seen + 1, self.warmup)
        if self.robust:
            reset = reset | (streak >= self.warmup)
        first_mean, first_variance = self._first(recent)
        new = {
            "recent": recent,
            "seen": ops.minimum(seen + 1, self.warmup),
            "mean": ops.where(reset, first_mean, new_mean),
            "variance": ops.where(reset, first_variance, new_variance),
            "streak": ops.where(reset, 0.0, streak),
        }
        return spike, {"norm": measured.global_norm, "limit": limit}, new

    def transform(self, gradients, limits):
        return [scale_down(g, limits["norm"], limits["limit"]) for g in gradients]

    def _first(self, norms):
        if self.robust:
            median = ops.sort(norms)[self.warmup // 2]
            norms = ops.minimum(norms, OFF_SCALE * median)
        mean = ops.mean(norms)
        return mean, ops.mean(ops.square(norms - mean))
