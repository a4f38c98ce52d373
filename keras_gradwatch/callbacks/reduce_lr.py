"""Cutting the learning rate when something explodes."""

from keras_gradwatch.callbacks.responding import RespondingCallback
from keras_gradwatch.controller.plan import ATTENTIVE_STEPS, Request
from keras_gradwatch.controller.responses import CutRate
from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.methods import number, whole


class ReduceLROnExplosion(RespondingCallback):
    """Reduces the learning rate after a step in which a detector trips.

    The cut is made as soon as the step has been read, and applies from the next step
    on. It is a factor on the learning rate that the user or another callback sets, and
    is multiplied into that rate when `fit` ends. A `LearningRateSchedule` continues,
    multiplied by the factor, which is not saved with the model. With
    `LossScaleOptimizer` and `MultiOptimizer`, the learning rates of the inner
    optimizers are cut. Steps with non-finite gradients are skipped.

    Args:
        factor: Factor by which a cut multiplies the learning rate, > 0 and < 1.
            Defaults to `0.5`.
        cooldown: Steps after a cut in which no further cut is made, >= 0. Defaults to
            `10`.
        min_lr: The learning rate is never cut below this, >= 0. If `0`, it is never
            cut below a thousandth of its original value. Defaults to `0.0`.
        detector: `detectors.Detector` to follow. If `None`, `NonFinite() | ZScore() |
            LossSpike()`: non-finite gradients or loss, a spike of the gradient norm, a
            spike of the loss. Defaults to `None`.
        verbose: `0` prints nothing; `1` prints one line for each of the first
            three events of each kind and action and, if there are more, the total when
            `fit` ends. Defaults to `1`.
        patience: If `1`, the learning rate is cut after each step in which a detector
            trips. If larger, it is cut only after at least as many such steps in a row,
            and only if such a streak is very unlikely to be coincidence. Defaults to
            `1`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `detector` is not a `Detector`.

    Example:

    ```python
    reduce = keras_gradwatch.callbacks.ReduceLROnExplosion(factor=0.5, cooldown=10)
    model.fit(x, y, callbacks=[reduce])
    ```
    """

    def __init__(
        self,
        factor: float = 0.5,
        cooldown: int = 10,
        min_lr: float = 0.0,
        detector: Detector | None = None,
        verbose: int = 1,
        patience: int = 1,
    ) -> None:
        super().__init__(detector, verbose)
        self.factor = number(self, "factor", factor, above=0, below=1)
        self.cooldown = whole(self, "cooldown", cooldown)
        self.min_lr = number(self, "min_lr", min_lr, at_least=0)
        self.patience = whole(self, "patience", patience, at_least=1)

    def request(self):
        settings = self.factor, self.cooldown, self.min_lr, self.patience
        cut = CutRate(self.detectors, *settings)
        return Request(
            "ReduceLROnExplosion", responses=(cut,), dense_steps=ATTENTIVE_STEPS
        )
