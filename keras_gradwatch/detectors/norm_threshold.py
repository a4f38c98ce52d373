"""A global norm above a fixed limit."""

import keras

from keras_gradwatch.detectors.base import Detector, Verdict
from keras_gradwatch.detectors.rounding import just_below
from keras_gradwatch.methods import number


@keras.saving.register_keras_serializable("keras_gradwatch")
class NormThreshold(Detector):
    """Trips when the global gradient norm is not below a limit.

    Formula: `not (‖g‖ < limit)`.

    Args:
        limit: The limit, in units of the gradient norm, > 0.

    Raises:
        ValueError: If `limit` is not a finite number > 0.

    Example:

    ```python
    callbacks.SkipOnExplosion(detector=detectors.NormThreshold(100.0))
    ```

    Reference: the fixed threshold of Pascanu, Mikolov and Bengio 2013, "On the
    difficulty of training recurrent neural networks" (arXiv 1211.5063).
    """

    kind = "norm"

    def __init__(self, limit: float) -> None:
        self.settings = {"limit": number(self, "limit", limit, above=0)}

    def limits(self, state):
        return {"global_norm": (0.0, just_below(self.settings["limit"]))}

    def observe(self, step, state):
        found = self.crossed(step, state)
        return found and Verdict(None, found[1], self.settings["limit"])

    def describe(self, variable, value, baseline):
        return (
            f"the global gradient norm is {value:.3g}, above the limit of "
            f"{baseline:.3g}"
        )
