"""Skipping harmful updates."""

from keras_gradwatch.callbacks.responding import RespondingCallback
from keras_gradwatch.controller.plan import ATTENTIVE_STEPS, Request
from keras_gradwatch.controller.responses import Skip


class SkipOnExplosion(RespondingCallback):
    """Skips an update whose step is outside the limits of a detector.

    The update is skipped in that very step, before it is applied. A spike below 10
    times the largest norm (or loss) of the first 20 steps is reported, but its update
    is applied; see `detectors.ZScore`.

    A skipped batch leaves the run as if it had not been in the data: it does not change
    weights, optimizer state, iterations, BatchNorm statistics, metrics or the epoch's
    loss. Random seeds advance. If a detector judges the update itself
    (`detectors.UpdateRatio`), the weights are restored instead.

    Args:
        detector: `detectors.Detector` to follow. If `None`, `NonFinite() | ZScore() |
            LossSpike()`: non-finite gradients or loss, a spike of the gradient norm, a
            spike of the loss. Defaults to `None`. Steps with non-finite
            gradients are skipped with any detector; a step whose loss alone is not
            finite is reported, and its update is applied.
        verbose: `0` prints nothing; `1` prints one line for each of the first
            three events of each kind and action and, if there are more, the total when
            `fit` ends. Defaults to `1`.

    Raises:
        TypeError: If `detector` is not a `Detector`.

    Example:

    ```python
    model.fit(x, y, callbacks=[keras_gradwatch.callbacks.SkipOnExplosion()])
    ```
    """

    def request(self):
        return Request(
            "SkipOnExplosion",
            responses=(Skip(self.detectors),),
            dense_steps=ATTENTIVE_STEPS,
        )
