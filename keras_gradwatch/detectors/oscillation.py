"""A loss that jumps to and fro: a rate beyond what the curvature allows."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors.base import whole_step
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number


@keras.saving.register_keras_serializable("keras_gradwatch")
class Oscillation(Onset):
    """Trips when the step's own loss has begun to swing with every step.

    Formula: with d the change of the loss from one step to the next, and ⟨·⟩ a running
    mean, it trips when `ρ = ⟨dₜ·dₜ₋₁⟩ / ⟨d²⟩ < −limit` and
    `√⟨d²⟩ > amplitude · ⟨|loss|⟩` have held for `patience` steps in a row.

    Noise does not trip it, however large: the changes of independent losses have
    ρ = −1/2, a steady descent has 1, and only a swing of period two comes near −1.
    That is what gradient descent does along a direction whose curvature is above
    2 / rate. It is clear where batches are large; where they are small, noise hides it.
    It tells the onset once. Two batches without shuffling swing by themselves.

    Args:
        limit: How near ρ must come to −1, between 0.5 and 1. Default 0.9.
        amplitude: Least swing, as a share of the loss, >= 0. Default 0.1.
        decay: Decay of the running means per step, 0 to 1. Default 0.95.
        patience: Steps in a row after which a change is believed, >= 1. Default 20.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.ReduceLROnExplosion(detector=detectors.Oscillation())
    ```

    Reference: Cohen et al. 2021, "Gradient Descent on Neural Networks Typically Occurs
    at the Edge of Stability", arXiv 2103.00065; as a symptom, the oscillating loss of
    Zhang et al. 2021, "AutoTrainer", ICSE, which counts swings over epochs.
    """

    kind = "oscillation"

    def __init__(self, limit=0.9, amplitude=0.1, decay=0.95, patience=20):
        super().__init__(patience)
        self.settings |= {
            "limit": number(self, "limit", limit, at_least=0.5, below=1),
            "amplitude": number(self, "amplitude", amplitude, at_least=0),
            "decay": number(self, "decay", decay, at_least=0, below=1),
        }

    def initial_state(self, num_variables):
        """That of `Onset`; the last loss and change; the running means; their age."""
        names = ("loss", "change", "product", "square", "size", "seen")
        own = {name: np.float32(0.0) for name in names}
        return {**super().initial_state(num_variables), **own}

    def detect(self, measured, state, settings):
        loss, seen = measured.loss, state["seen"]
        # Beyond this, the square of a change would leave float32's range.
        usable = measured.finite & (ops.abs(loss) < 1e18)
        change = ops.where(seen > 0, loss - state["loss"], 0.0)
        weight = 1 - settings["decay"]

        def mean(name, value):
            return state[name] + weight * (value - state[name])

        both = (ops.square(change) + ops.square(state["change"])) / 2
        new = {
            "loss": loss,
            "change": change,
            "product": mean("product", change * state["change"]),
            "square": mean("square", both),
            "size": mean("size", ops.abs(loss)),
            "seen": seen + 1,
        }
        swing = ops.sqrt(new["square"])
        holds = new["product"] < -settings["limit"] * new["square"]
        holds = holds & (swing > settings["amplitude"] * new["size"])
        tripped, turned = self.onset(holds, usable & (seen >= 2), state, settings)
        new = {**new, **turned}
        new = {name: ops.where(usable, new[name], state[name]) for name in new}
        return whole_step(tripped, swing, new["size"]), new

    def describe(self, variable, value, baseline):
        del variable
        return f"the loss swings by {value:.3g} with every step, around {baseline:.3g}"
