"""Units that no longer get a gradient: dying ReLU."""

import keras
import numpy as np

from keras_gradwatch.detectors.base import Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number, whole


@keras.saving.register_keras_serializable("keras_gradwatch")
class DeadUnits(Onset):
    """Trips when the gradient of most units has become exactly zero.

    Formula: of the gradients of all variables with one axis (biases, scales of
    normalization) but the last one, more than a fraction `limit` of the elements are
    exactly zero, and in at least one of these variables all are. It trips if this holds
    in `patience` samples in a row that are at least `apart` steps apart.

    The gradient of a bias is exactly zero if its unit is off for every sample of the
    batch. The gradient of a kernel is also zero if an *input* is zero: pixels that are
    always black, one-hot inputs, rows of an embedding, padding. So only variables with
    one axis are counted, and a model without them is not judged. In batches of one
    sample most ReLUs of a healthy network may be off, but hardly ever a whole layer
    three times in a row. `zero_fraction` is sampled, and steps without it are not
    judged. It reports the onset once, and names the first variable without any
    gradient.

    Args:
        limit: Fraction of zeros above which it trips, > 0 and < 1. Defaults to `0.7`.
        apart: Minimum number of steps between two samples, >= 1. Defaults to `10`.
        patience: Samples in a row for which the condition must hold, or no longer hold,
            before the state changes, >= 1. Defaults to `3`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.TerminateOnExplosion(detector=detectors.DeadUnits())
    ```

    Reference: Zhang et al. 2021, "AutoTrainer: An Automatic DNN Training Problem
    Detection and Repair System", ICSE, which counts the zeros of all gradients of one
    batch, with a threshold of 0.7; Lu et al. 2019, "Dying ReLU and Initialization",
    arXiv 1903.06733.
    """

    kind = "dead units"
    reads = ("zero_fraction",)

    def __init__(self, limit: float = 0.7, apart: int = 10, patience: int = 3) -> None:
        super().__init__(patience)
        self.settings |= {
            "limit": number(self, "limit", limit, above=0, below=1),
            "apart": whole(self, "apart", apart, at_least=1),
        }

    def initial_state(self, num_variables):
        """That of `Onset`, and the step of the last sample."""
        return {**super().initial_state(num_variables), "last": -1e9}

    def observe(self, step, state):
        zeros = step.statistics.get("zero_fraction")
        if zeros is None or step.step - state["last"] < self.settings["apart"]:
            return None
        # The last bias is that of the outputs, which are no units.
        counted = np.flatnonzero(~step.kernels & ~np.isnan(zeros))[:-1]
        # A gradient that is zero everywhere says nothing about the units.
        if not len(counted) or not step.global_norm > 0:
            return None
        state["last"] = float(step.step)
        shares, sizes = zeros[counted], step.sizes[counted]
        share = float(shares @ sizes) / max(float(sizes.sum()), 1.0)
        holds = share > self.settings["limit"] and bool(shares.max() >= 1)
        if not self.onset(holds, state):
            return None
        first = int(counted[shares.argmax()])
        return Verdict(first, share, self.settings["limit"])

    def describe(self, variable, value, baseline):
        share = f"{value:.0%} of the units"
        return f"{share} get no gradient, and the gradient of {variable} is exactly 0"
