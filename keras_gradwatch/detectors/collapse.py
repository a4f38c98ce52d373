"""A network that has died: no gradient reaches any of its kernels."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors.base import Detector, whole_step
from keras_gradwatch.methods import whole
from keras_gradwatch.train_step.statistics import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class Collapse(Detector):
    """Trips when the gradient of every kernel is exactly zero, step after step.

    Formula: once a gradient has come through, for `steps` steps in a row
    `Σ ‖g_kernel‖ = 0` while `‖g‖ > 0`: the loss still asks for something, and only a
    bias can give it. So ends a network of
    rectified units that one large update has pushed below zero for every input. It
    trips once, and again only after a gradient has come through in between.

    Args:
        steps: Steps in a row, >= 1. Default 20: with small batches a step in which
            all units of one layer are off is nothing unusual.

    Raises:
        ValueError: If `steps` is not an integer >= 1.

    Example:

    ```python
    callbacks.RewindOnExplosion(detector=detectors.Collapse())
    ```

    Reference: the dying ReLU (Lu et al. 2019, arXiv 1903.06733), here in its last
    stage, where nothing but going back helps.
    """

    kind = "collapse"

    def __init__(self, steps=20):
        self.settings = {"steps": whole(self, "steps", steps, at_least=1)}

    def initial_state(self, num_variables):
        """Steps in a row without a gradient, and whether there ever was one."""
        del num_variables
        return {"streak": np.float32(0), "alive": np.float32(0)}

    def detect(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        connected = measured.kernels & ~ops.isnan(norms)
        kernels = ops.sum(ops.where(connected, norms, 0.0))
        dead = ops.any(connected) & ops.equal(kernels, 0.0)
        dead = dead & (measured.global_norm > 0)
        alive = ops.maximum(state["alive"], ops.where(kernels > 0, 1.0, 0.0))
        streak = ops.where(dead, state["streak"] + alive, 0.0)
        tripped = ops.equal(streak, settings["steps"])
        state = {"streak": streak, "alive": alive}
        return whole_step(tripped, streak, settings["steps"]), state

    def lines(self, measured, state, settings):
        """None, once a gradient has come through; see `Detector.lines`."""
        del settings
        if not any(measured.kernels):
            return {}  # never judged
        alive = (state["alive"] > 0) & ops.equal(state["streak"], 0)
        return {"global_norm": (0.0, ops.where(alive, float("inf"), 0.0))}

    def describe(self, variable, value, baseline):
        del variable, baseline
        return f"no gradient has reached any kernel for {int(value)} steps"
