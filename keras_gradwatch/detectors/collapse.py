"""A network that has died: no gradient reaches any of its kernels."""

import keras

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import whole


@keras.saving.register_keras_serializable("keras_gradwatch")
class Collapse(Detector):
    """Trips when the gradient of every kernel is exactly zero, step after step.

    Formula: for `steps` steps in a row `Σ ‖g_kernel‖ = 0` while `‖g‖ > 0`, after a
    step in which `Σ ‖g_kernel‖ > 0`.

    The loss could still be reduced, but only biases receive a gradient. This happens
    when one large update pushes all rectified units of a layer below zero for every
    input. It trips once, and again only after a kernel has had a gradient.

    Args:
        steps: Steps in a row, >= 1. With small batches, an occasional step in which a
            whole layer is inactive is normal. Defaults to `20`.

    Raises:
        ValueError: If `steps` is not an integer >= 1.

    Example:

    ```python
    callbacks.RewindOnExplosion(detector=detectors.Collapse())
    ```

    Reference: the dying ReLU (Lu et al. 2019, arXiv 1903.06733), in its last stage,
    from which only restoring earlier weights helps.
    """

    kind = "collapse"

    def __init__(self, steps: int = 20) -> None:
        self.settings = {"steps": whole(self, "steps", steps, at_least=1)}

    def initial_state(self, num_variables):
        """Steps in a row without a gradient, and whether there ever was one."""
        return {"streak": 0.0, "alive": 0.0}

    def observe(self, step, state):
        kernels = step.norms[step.kernels]
        if (kernels > 0).any():
            state["alive"], state["streak"] = 1.0, 0.0
        elif step.global_norm > 0 and (kernels == 0).any():
            state["streak"] += state["alive"]
        else:
            state["streak"] = 0.0
        streak, steps = state["streak"], self.settings["steps"]
        return Verdict(None, streak, float(steps)) if streak == steps else None

    def describe(self, variable, value, baseline):
        return f"no gradient has reached any kernel for {int(value)} steps"
