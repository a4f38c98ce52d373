"""An update that is large against the weights it changes: the trust bound."""

import keras
from keras import ops

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.methods import number
from keras_gradwatch.train_step.statistics import NAMES
from keras_gradwatch.train_step.trust_region import FLOOR


@keras.saving.register_keras_serializable("keras_gradwatch")
class UpdateRatio(Detector):
    """Trips when one update changes a kernel by more than a share of its own size.

    Formula: `not (‖Δw‖ < limit · max(‖w‖, floor·√n))` for a variable of n elements
    with two or more axes.

    It judges the update that was made, so it needs no warm-up, sees what no norm of a
    gradient shows (Adam at a rate of 1), and does not depend on the optimizer. Biases
    and scales, which begin at zero, are left out.

    Args:
        limit: Largest share of the weights that one update may change, > 0.
        floor: Root mean square below which weights count as this large, >= 0: a kernel
            that begins at zero must be able to leave it.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.ReduceLROnExplosion(detector=detectors.UpdateRatio(0.5))
    ```

    Reference: the trust ratio ‖w‖/‖Δw‖ of LARS (You et al. 2017, arXiv 1708.03888),
    as a test rather than as a rate.
    """

    kind = "update"
    after_update = True

    def __init__(self, limit=0.5, floor=FLOOR):
        self.settings = {
            "limit": number(self, "limit", limit, above=0),
            "floor": number(self, "floor", floor, at_least=0),
        }

    def detect(self, measured, state, settings):
        weights = measured.statistics[:, NAMES.index("weight_norm")]
        ratio = measured.statistics[:, NAMES.index("update_ratio")]
        floor = settings["floor"] * ops.sqrt(measured.sizes)
        # Where the weights were all zero the ratio is infinite and the floor is none.
        against = ops.where(
            weights > 0, ratio * weights / ops.maximum(weights, floor), 0.0
        )
        sampled = ~ops.isnan(weights)
        judged = sampled & measured.kernels
        over = judged & ~ops.less(against, settings["limit"])
        size = ops.where(judged, against, 0.0)
        size = ops.where(ops.isnan(size), float("inf"), size)
        worst = ops.cast(ops.argmax(size), "int32")
        verdict = Verdict(
            ops.any(over),
            worst,
            ops.take(size, worst),
            ops.cast(settings["limit"], "float32"),
        )
        return verdict, state

    def lines(self, measured, state, settings):
        """Where no update is measured there is nothing to judge."""
        del measured, state, settings
        return {}

    def describe(self, variable, value, baseline):
        if value < baseline:
            # While updates are held, a cut of the rate is told in this one's name.
            return (
                "the loss does not fall although updates are held; that of "
                f"{variable} was {value:.3g} times its weights"
            )
        return (
            f"the update of {variable} was {value:.3g} times its weights, over the "
            f"trust bound {baseline:.3g}"
        )
