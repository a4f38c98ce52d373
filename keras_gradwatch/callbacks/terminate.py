"""Stopping a run that explodes."""

from keras_gradwatch.callbacks.responding import RespondingCallback
from keras_gradwatch.controller.plan import ATTENTIVE_STEPS, Request
from keras_gradwatch.controller.responses import Halt, Skip
from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.methods import whole
from keras_gradwatch.records.events import Event
from keras_gradwatch.reports.diagnosis import RunSummary
from keras_gradwatch.reports.report import explain


class ExplosionError(RuntimeError):
    """Raised when `TerminateOnExplosion(mode="raise")` stops training.

    Attributes:
        events: The `Event`s that stopped training.
    """

    def __init__(self, message: str, events: list[Event]) -> None:
        super().__init__(message)
        self.events = events


class TerminateOnExplosion(RespondingCallback):
    """Stops training when a detector trips, and keeps the last healthy weights.

    Once a detector has tripped in `limit` steps, no further update is applied, not even
    that of the last of these steps. With a detector without limits (`Vanishing`, for
    example), updates stop when the host has read the step. `fit` ends when the host
    next reads the recorded steps. The update of a spike below 10 times the largest norm
    (or loss) of the first 20 steps is still applied, and training stops after it; see
    `detectors.ZScore`.

    Args:
        detector: `detectors.Detector` to follow. If `None`, `NonFinite() | ZScore() |
            LossSpike()`: non-finite gradients or loss, a spike of the gradient norm, a
            spike of the loss. Defaults to `None`.
        limit: Number of steps in which a detector must trip before `fit` ends, >= 1.
            Defaults to `1`.
        mode: `"stop"` ends `fit` as `EarlyStopping` does; `"raise"` raises
            `ExplosionError`. Defaults to `"stop"`.
        verbose: `0` prints nothing; `1` prints the events and the report. Defaults to
            `1`.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `detector` is not a `Detector`.

    Example:

    ```python
    stop = keras_gradwatch.callbacks.TerminateOnExplosion(mode="raise")
    model.fit(x, y, callbacks=[stop])
    ```
    """

    update_freq = 10

    def __init__(
        self,
        detector: Detector | None = None,
        limit: int = 1,
        mode: str = "stop",
        verbose: int = 1,
    ) -> None:
        super().__init__(detector, verbose)
        self.limit = whole(self, "limit", limit, at_least=1)
        if mode not in ("stop", "raise"):
            raise ValueError(
                'TerminateOnExplosion: `mode` must be "stop" or "raise". '
                f"Received: mode={mode!r}"
            )
        self.mode = mode

    def request(self):
        responses = (Skip(self.detectors), Halt(self.detectors, self.limit))
        return Request(
            "TerminateOnExplosion", responses=responses, dense_steps=ATTENTIVE_STEPS
        )

    def set_model(self, model):
        """Watches `model`; a new `fit` may run until it explodes again."""
        super().set_model(model)
        self._stopped = False

    def on_first_batch(self):
        """Ignores events from before this `fit`."""
        super().on_first_batch()
        self._before = len(self.events)
        self.summary = RunSummary()

    def on_train_batch_begin(self, batch, logs=None):
        """Reads new steps, and ends `fit` if the device has stopped the updates."""
        super().on_train_batch_begin(batch, logs)
        self._end_if_halted()

    def on_epoch_end(self, epoch, logs=None):
        """Reads new steps, and ends `fit` if the device has stopped the updates."""
        super().on_epoch_end(epoch, logs)
        self._end_if_halted()

    def _end_if_halted(self):
        if self._stopped or not self._gradwatch.halted:
            return
        self._stopped = True
        self.model.stop_training = True
        events = self.events[self._before :]
        message = explain(self.summary, stopped=True)
        if self.mode == "raise":
            raise ExplosionError(message, events)
        if self.verbose:
            self._gradwatch.recorder.say(message)
