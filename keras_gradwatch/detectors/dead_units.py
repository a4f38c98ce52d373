"""Units that get no gradient any more: dying ReLU."""

import keras
import numpy as np
from keras import ops

from keras_gradwatch.detectors.base import Verdict
from keras_gradwatch.detectors.onset import Onset
from keras_gradwatch.methods import number, whole
from keras_gradwatch.train_step.statistics import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class DeadUnits(Onset):
    """Trips when most units have begun to get exactly no gradient.

    Formula: of the gradients of all variables with one axis (biases, scales of
    normalization), the last one aside, more than `limit` of the elements are exactly
    zero, and those of one such variable all are; in `patience` samples in a row, at
    least `apart` steps from each other.

    The gradient of a bias is exactly zero where its unit passes nothing on for any
    sample of the batch. The gradient of a kernel is also zero where an *input* is: for
    pixels that are always black, one-hot inputs, rows of an embedding, padding. So
    biases are counted, and a model without any is not judged. In batches of one sample
    most ReLUs of a healthy network may be off, but hardly ever a whole layer three
    times in a row. `zero_fraction` is sampled, and steps without it are passed over.
    It tells the onset once, and names the first variable without any gradient.

    Args:
        limit: Share of zeros, between 0 and 1. Default 0.7.
        apart: Steps between two samples, at least, >= 1. Default 10.
        patience: Samples in a row after which a change is believed, >= 1. Default 3.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.TerminateOnExplosion(detector=detectors.DeadUnits())
    ```

    Reference: Zhang et al. 2021, "AutoTrainer: An Automatic DNN Training Problem
    Detection and Repair System", ICSE, which counts the zeros of all gradients of one
    batch: 0.7; Lu et al. 2019, "Dying ReLU and Initialization", arXiv 1903.06733.
    """

    kind = "dead units"

    def __init__(self, limit=0.7, apart=10, patience=3):
        super().__init__(patience)
        self.settings |= {
            "limit": number(self, "limit", limit, above=0, below=1),
            "apart": whole(self, "apart", apart, at_least=1),
        }

    def initial_state(self, num_variables):
        """That of `Onset`, and the step of the last sample."""
        return {**super().initial_state(num_variables), "last": np.float32(-1e9)}

    def detect(self, measured, state, settings):
        zeros = measured.statistics[:, NAMES.index("zero_fraction")]
        vectors = ~measured.kernels & ~ops.isnan(zeros)
        # The last bias is that of the outputs, and no unit's.
        behind = ops.flip(ops.cumsum(ops.flip(ops.cast(vectors, "int32"))))
        counted = vectors & (behind > 1)
        shares = ops.where(counted, zeros, 0.0)
        sizes = ops.where(counted, measured.sizes, 0.0)
        share = ops.sum(shares * sizes) / ops.maximum(ops.sum(sizes), 1.0)
        # A gradient that is zero everywhere tells of the batch, not of the units.
        judged = measured.finite & ops.any(counted) & (measured.global_norm > 0)
        step = ops.cast(measured.step, "float32")
        judged = judged & (step - state["last"] >= settings["apart"])
        holds = (share > settings["limit"]) & (ops.max(shares) >= 1)
        tripped, new = self.onset(holds, judged, state, settings)
        new["last"] = ops.where(judged, step, state["last"])
        first = ops.cast(ops.argmax(shares), "int32")
        return Verdict(tripped, first, share, settings["limit"]), new

    def lines(self, measured, state, settings):
        """Nothing is judged in a step that is not sampled."""
        del measured, state, settings
        return {}

    def describe(self, variable, value, baseline):
        del baseline
        return f"{value:.0%} of the units get no gradient, and none in {variable}"
