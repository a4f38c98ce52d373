"""An update that is large compared with the weights that it changes."""

import keras
import numpy as np

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.detectors.observation import FLOOR
from keras_gradwatch.detectors.rounding import just_below
from keras_gradwatch.methods import number


@keras.saving.register_keras_serializable("keras_gradwatch")
class UpdateRatio(Detector):
    """Trips when one update changes a kernel by more than a fraction of its norm.

    Formula: `not (‖Δw‖ < limit · max(‖w‖, floor·√n))` for a variable of n elements
    with two or more axes. An update of weights that are all zero is not judged.

    It judges the update, so it needs no warm-up, does not depend on the optimizer, and
    finds problems that the gradient norm does not show (Adam at a learning rate of 1).
    It ignores variables with fewer than two axes: biases, which may start at zero, and
    scales.

    Args:
        limit: Value of ‖Δw‖ / ‖w‖ at which the detector trips, > 0. Defaults to `0.5`.
        floor: Smallest root mean square that is assumed for weights, >= 0, so that a
            kernel that starts near zero can be trained. Defaults to `0.05`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.ReduceLROnExplosion(detector=detectors.UpdateRatio(0.5))
    ```

    Reference: based on the ratio ‖w‖/‖g‖ of LARS (You et al. 2017, arXiv 1708.03888),
    but computed from the update and used as a test.
    """

    kind = "update"
    reads = ("update_ratio", "weight_norm")

    def __init__(self, limit: float = 0.5, floor: float = FLOOR) -> None:
        self.settings = {
            "limit": number(self, "limit", limit, above=0),
            "floor": number(self, "floor", floor, at_least=0),
        }

    def limits(self, state):
        return {"update_ratio": (0.0, just_below(self.settings["limit"]))}

    def observe(self, step, state):
        if np.isnan(step.statistic("weight_norm")).all():
            return None  # not measured
        ratios = step.relative_updates(self.settings["floor"])
        worst = int(np.where(np.isnan(ratios), -1.0, ratios).argmax())
        if not ratios[worst] >= np.float32(self.settings["limit"]):
            return None
        return Verdict(worst, float(ratios[worst]), self.settings["limit"])

    def describe(self, variable, value, baseline):
        size = f"{value:.0%} of" if value < 10 else f"{value:.3g} times"
        return f"an update changed {variable} by {size} its norm (limit {baseline:.0%})"
