"""A gradient or a loss that is NaN or infinite."""

import keras
from keras import ops

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.train_step.statistics import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class NonFinite(Detector):
    """Trips when a gradient or the loss holds a NaN or an infinity.

    Formula: `Σ nonfinite_count > 0` or `not isfinite(loss)`.

    Every watched model has this detector, whatever else is asked for. Its events name
    the variable with the most non-finite elements; `value` is their number, or the
    loss itself where only the loss is not finite. `baseline` is the loss scale, or 0.

    Under a dynamic loss scale, gradients that are not finite although the loss is are
    an overflow, which that scale deals with: no event, unless the scale is at 1 or
    below, or it is the 20th overflow in a row.

    Reference: the check of loss-scaling optimizers (Micikevicius et al. 2018,
    "Mixed Precision Training", arXiv 1710.03740), here on every run.
    """

    kind = "nonfinite"

    def detect(self, measured, state, settings):
        del settings
        counts = measured.statistics[:, NAMES.index("nonfinite_count")]
        counts = ops.where(ops.isnan(counts), 0.0, counts)
        worst = ops.cast(ops.argmax(counts), "int32")
        total = ops.sum(counts)
        in_gradient = total > 0
        verdict = Verdict(
            ~measured.finite,
            ops.where(in_gradient, worst, -1),
            ops.where(in_gradient, ops.max(counts), measured.loss),
            ops.where(ops.isnan(measured.loss_scale), 0.0, measured.loss_scale),
        )
        return verdict, state

    def lines(self, measured, state, settings):
        """Finite gradients and a finite loss are all that it asks for."""
        del measured, state, settings
        return {}

    def describe(self, variable, value, baseline):
        if variable is None:
            return f"the loss is {value:g}"
        values = "value" if value == 1 else "values"
        scale = f" at a loss scale of {baseline:g}" if baseline > 0 else ""
        return f"{int(value)} non-finite gradient {values} in {variable}{scale}"
