"""A gradient or a loss that is NaN or infinite."""

import math

import keras
import numpy as np

from keras_gradwatch.detectors.base import Detector, Verdict


@keras.saving.register_keras_serializable("keras_gradwatch")
class NonFinite(Detector):
    """Trips when a gradient or the loss contains NaN or infinity.

    Formula: `Σ nonfinite_count > 0` or `not isfinite(loss)`.

    Every watched model has this detector. Its events name the variable with the most
    non-finite elements. `value` is their number, or the loss if only the loss is not
    finite. `baseline` is the loss scale, or 0.

    With a dynamic loss scale, non-finite gradients with a finite loss are an overflow,
    which the loss scale handles. Such a step is not an event, unless the scale is
    6.1e-5 (2⁻¹⁴) or below, or it is the 20th overflow in a row.

    Reference: the check of loss-scaling optimizers (Micikevicius et al. 2018,
    "Mixed Precision Training", arXiv 1710.03740), here on every run.
    """

    kind = "nonfinite"

    def observe(self, step, state):
        if step.finite:
            return None
        variable, value = None, step.loss
        counts = np.nan_to_num(step.statistic("nonfinite_count"))
        if counts.any():
            variable = int(counts.argmax())
            value = float(counts[variable])
        scale = 0.0 if math.isnan(step.loss_scale) else step.loss_scale
        return Verdict(variable, value, scale)

    def describe(self, variable, value, baseline):
        if variable is None:
            return f"the loss is {value:g}, but every gradient is finite"
        values = "value" if value == 1 else "values"
        scale = f" at a loss scale of {baseline:g}" if baseline > 0 else ""
        return f"{int(value)} non-finite gradient {values} in {variable}{scale}"
