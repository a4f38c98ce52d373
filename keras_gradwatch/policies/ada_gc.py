"""Clipping each variable's gradient to its own running norm."""

import math

import keras
import numpy as np
from keras import ops

from keras_gradwatch.methods import flag, number, whole
from keras_gradwatch.policies.base import OFF_SCALE, Policy, scale, share
from keras_gradwatch.statistics.names import NAMES

PATIENCE = 25  # steps in a row off the scale after which a level is reset
LARGEST_LOG = 88.0  # of what float32 holds


@keras.saving.register_keras_serializable("keras_gradwatch")
class AdaGC(Policy):
    """Clips the norm of each variable's gradient to a multiple of its own running norm.

    Formula: `ĝ = g · min(1, λ·γ / ‖g‖)` and `γ ← β·γ + (1 − β)·‖ĝ‖`, each variable by
    itself. In the first `warmup` steps the global norm is clipped to
    `global_clipnorm`, and γ is the smallest ‖ĝ‖ so far.

    In the published rule γ rises by at most (1 − β)(λ − 1) = 0.1% per step, so a shift
    by ×1000 takes 6,900 steps. One gradient of zero in the warm-up (such as that of
    LoRA's A, while B is zero) makes γ, and every later gradient of that variable,
    permanently zero. With `robust`:

    - gradients of zero are ignored;
    - at the end of the warm-up, γ is raised to at least a tenth of the geometric mean
      of ‖ĝ‖;
    - u is the running geometric mean of ‖g‖. After 25 steps in a row in which ‖g‖ was
      more than 10·u or less than u / 10, u becomes the mean of those steps. γ keeps its
      ratio to u, limited to a tenth at least and 1 at most. So the rule adapts to a
      shift of scale by more than 10 within 25 steps, and to a smaller one within 2,350.

    In runs without such events, both rules agree. Steps with non-finite gradients are
    always ignored.

    State: `level` γ [V], `usual` log u [V], `streak` [V], the steps in a row in which
    ‖g‖ was beyond 10·u or below u / 10, `fresh` [V], the mean of log ‖g‖ in them, or of
    log ‖ĝ‖ in the warm-up, and `seen`, the steps so far (up to `warmup`).

    Args:
        factor: λ, > 1. Defaults to `1.05`.
        decay: β per step, >= 0 and < 1. Defaults to `0.98`, about 50 steps.
        warmup: Steps of global clipping, >= 1. Defaults to `100`.
        global_clipnorm: Limit in those steps, in units of the gradient norm, > 0.
            Defaults to `1.0`.
        robust: Whether to use the rule above; `False` for the published one. Defaults
            to `True`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.GradientClipping(policy=policies.AdaGC())
    ```

    Reference: Wang et al. 2025, "AdaGC: improving training stability for large language
    model pretraining" (arXiv 2502.11034).
    """

    def __init__(
        self,
        factor: float = 1.05,
        decay: float = 0.98,
        warmup: int = 100,
        global_clipnorm: float = 1.0,
        robust: bool = True,
    ) -> None:
        self.settings = {
            "factor": number(self, "factor", factor, above=1),
            "decay": number(self, "decay", decay, at_least=0, below=1),
            "warmup": whole(self, "warmup", warmup, at_least=1),
            "global_clipnorm": number(
                self, "global_clipnorm", global_clipnorm, above=0
            ),
        }
        self.robust = flag(self, "robust", robust)

    def get_config(self):
        return {**self.settings, "robust": self.robust}

    def initial_state(self, num_variables):
        """Each variable's levels and streak, and the number of steps."""
        names = ("level", "usual", "streak", "fresh")
        zeros = {name: np.zeros(num_variables, "float32") for name in names}
        return {**zeros, "seen": np.float32(0.0)}

    def decide(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        level, seen, decay = state["level"], state["seen"], settings["decay"]
        warm = seen >= settings["warmup"]
        known = level > 0 if self.robust else seen > 0

        limit = settings["factor"] * level
        factors = ops.where(
            warm,
            share(norms, ops.where(known, limit, norms)),
            share(measured.global_norm, settings["global_clipnorm"]),
        )
        clipped = norms * factors
        averaged = decay * level + (1 - decay) * clipped
        taken_in = ops.where(warm, averaged, ops.minimum(level, clipped))
        new = {**state, "level": ops.where(known, taken_in, clipped)}
        new["seen"] = ops.minimum(seen + 1, settings["warmup"])
        if self.robust:
            new |= _rescaled(norms, clipped, new["level"], state, settings)
        return ops.any(factors < 1), {"factors": factors}, new

    def transform(self, gradients, limits):
        return [scale(g, limits["factors"][i]) for i, g in enumerate(gradients)]


def _rescaled(norms, clipped, level, state, settings):
    """Returns the new robust state of each variable; `level` [V] is the published γ."""
    seen, usual, fresh = state["seen"], state["usual"], state["fresh"]
    warm = seen >= settings["warmup"]
    known = state["level"] > 0
    log = ops.log(ops.where(norms > 0, norms, 1.0))
    log_clipped = ops.log(ops.where(clipped > 0, clipped, 1.0))
    off = warm & known & (ops.abs(log - usual) > math.log(OFF_SCALE))
    streak = ops.where(off, state["streak"] + 1, 0.0)
    # Plain means of the warm-up, and of the steps off the scale.
    plain = 1 / (seen + 1)
    weight = ops.where(off, 0.0, ops.maximum(plain, 1 - settings["decay"]))
    usual = usual + ops.where(known, weight, 1.0) * (log - usual)
    weight = ops.where(warm, 1 / ops.maximum(streak, 1.0), ops.where(known, plain, 1.0))
    fresh = fresh + weight * (ops.where(warm, log, log_clipped) - fresh)

    last = ops.equal(seen + 1, settings["warmup"])
    floor = ops.where(last, ops.exp(fresh) / OFF_SCALE, 0.0)
    reset = streak >= PATIENCE
    ratio = ops.log(ops.where(known, level, 1.0)) - usual
    ratio = ops.clip(ratio, -math.log(OFF_SCALE), 0.0)
    moved = ops.exp(ops.minimum(ratio + fresh, LARGEST_LOG))
    new = {
        "level": ops.where(reset, moved, ops.maximum(level, floor)),
        "usual": ops.where(reset, fresh, usual),
        "streak": ops.where(reset, 0.0, streak),
        "fresh": fresh,
    }
    # A norm of zero says nothing of the scale.
    return {name: ops.where(norms > 0, new[name], state[name]) for name in new}
