"""A loss that oscillates: the learning rate is too high for the curvature."""

import math

import keras

from keras_gradwatch.detectors.base import Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number

# One larger loss would dominate the running means for the rest of the run.
LARGEST_LOSS = 1e18


@keras.saving.register_keras_serializable("keras_gradwatch")
class Oscillation(Onset):
    """Trips when the step's own loss begins to swing from step to step.

    Formula: with d the change of the loss from one step to the next, and ⟨·⟩ a running
    mean, it trips when `ρ = ⟨dₜ·dₜ₋₁⟩ / ⟨d²⟩ < −limit` and
    `√⟨d²⟩ > amplitude · ⟨|loss|⟩` have held for `patience` steps in a row.

    Noise does not trip it, however large: ρ is −1/2 for independent losses, 1 for a
    steady descent, and near −1 only for a swing of period two. Gradient descent swings
    like this along a direction whose curvature is above 2 / learning rate. The swing is
    visible with large batches; with small ones, noise hides it. The detector reports
    the onset once. It also trips if each epoch consists of two unshuffled batches with
    different losses.

    Args:
        limit: How near ρ must come to −1, between 0.5 and 1. Defaults to `0.9`.
        amplitude: Minimum swing, as a fraction of the loss, >= 0. Defaults to `0.1`.
        decay: Decay of the running means per step, >= 0 and < 1. Defaults to `0.95`.
        patience: Steps in a row for which the condition must hold, or no longer hold,
            before the state changes, >= 1. Defaults to `20`.

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
    needs_loss = True

    def __init__(
        self,
        limit: float = 0.9,
        amplitude: float = 0.1,
        decay: float = 0.95,
        patience: int = 20,
    ) -> None:
        super().__init__(patience)
        self.settings |= {
            "limit": number(self, "limit", limit, at_least=0.5, below=1),
            "amplitude": number(self, "amplitude", amplitude, at_least=0),
            "decay": number(self, "decay", decay, at_least=0, below=1),
        }

    def initial_state(self, num_variables):
        """State of `Onset`, the last loss and change, running means, losses seen."""
        names = ("loss", "change", "product", "square", "size", "seen")
        return {**super().initial_state(num_variables), **dict.fromkeys(names, 0.0)}

    def observe(self, step, state):
        loss, seen = step.loss, state["seen"]
        if not abs(loss) < LARGEST_LOSS:
            return None
        change = loss - state["loss"] if seen > 0 else 0.0
        weight = 1 - self.settings["decay"]
        for name, value in (
            ("product", change * state["change"]),
            ("square", (change**2 + state["change"] ** 2) / 2),
            ("size", abs(loss)),
        ):
            state[name] += weight * (value - state[name])
        state |= {"loss": loss, "change": change, "seen": seen + 1}
        square, size = state["square"], state["size"]
        swing = math.sqrt(square)
        holds = state["product"] < -self.settings["limit"] * square
        holds = holds and swing > self.settings["amplitude"] * size
        return Verdict(None, swing, size) if self.onset(holds, state) else None

    def describe(self, variable, value, baseline):
        return (
            f"the loss swings by {value:.3g} from step to step, around {baseline:.3g}"
        )
