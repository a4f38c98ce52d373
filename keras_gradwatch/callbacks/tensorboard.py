"""Gradients in TensorBoard."""

import atexit

import keras
import numpy as np

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard.log import GradientLog


class GradientTensorBoard(WatchingCallback):
    """Logs the gradients of the real training steps to TensorBoard. It only observes.

    The steps on the axis are training steps, counted over all `fit` calls. What is
    logged, below the run `gradwatch` in `log_dir`:

    | tag | what |
    |---|---|
    | `gradwatch/grad_norm` | global gradient norm of the step, before clipping |
    | `gradwatch/grad_norm_clipped` | the same after clipping |
    | `gradwatch/grad_norm_max` | largest finite norm since the last point |
    | `gradwatch/clip_factor` | norm after / norm before clipping |
    | `gradwatch/clipped_share` | share of steps clipped since the last point |
    | `gradwatch/nonfinite_count` | non-finite gradient values since the last point |
    | `gradwatch/explosions` | steps since the last point in which a detector tripped |
    | `gradwatch/learning_rate` | learning rate in effect in the step |
    | `gradwatch/loss` | the step's own loss |
    | `gradwatch/trust_radius` | share of a kernel that an update may change, while \
updates are held |
    | `gradwatch/loss_scale` | what the loss was multiplied by, where it was |
    | `gradwatch/overflows` | overflows of a dynamic loss scale since the last point |
    | `gradwatch/heatmap` | picture: log₁₀ norm, variable × step |
    | `gradwatch/events` | text: each event |
    | `gradwatch_variables/<statistic>/<variable>` | with `per_variable=True` |
    | `gradwatch_histograms/<variable>` | with `histogram_freq` > 0 |

    Args:
        log_dir: Local directory of the run; made if missing.
        update_freq: Steps between two points, >= 1. The first and the last step and
            each step with an event are written in any case.
        per_variable: Whether every statistic of every variable is logged, too.
        histogram_freq: Steps between two histograms of the gradients; 0: none.
        include: Regular expression, or a list of them, that a variable's path must
            match somewhere to be logged by itself; None: all.

    Raises:
        ValueError: If an argument is out of its range, or, when `fit` begins, if
            `log_dir` cannot be written.

    Example:

    ```python
    board = keras_gradwatch.callbacks.GradientTensorBoard("logs", per_variable=True)
    model.fit(x, y, callbacks=[board])
    ```
    """

    def __init__(
        self,
        log_dir,
        update_freq=50,
        per_variable=False,
        histogram_freq=0,
        include=None,
    ):
        super().__init__()
        self.log = GradientLog(
            log_dir, update_freq, per_variable, histogram_freq, include
        )
        # The newest histogram is kept on the device until it is drained.
        self.update_freq = min(50, update_freq, histogram_freq or 50)

    def request(self):
        return Request(
            "GradientTensorBoard",
            # A point shows all statistics of its step.
            statistics=NAMES if self.log.per_variable else (),
            sample_freq=self.log.update_freq,
            histogram_freq=self.log.histogram_freq,
            state_dir=self.log.log_dir,
        )

    def join(self, model):
        """Follows `model` for another callback, which asks and drains for it."""
        keras.callbacks.Callback.set_model(self, model)
        self._gradwatch = model.gradwatch

    def on_first_batch(self):
        """Opens an event file."""
        self.log.begin(self._gradwatch.step)
        # Keras does not report that `fit` was interrupted.
        atexit.register(self.finish)

    def finish(self):
        """Writes what is still in the ring, and closes the file."""
        atexit.unregister(self.finish)
        self._gradwatch.drain()
        self.log.heatmap(self._gradwatch.step - 1)
        self.log.close()

    def on_rows(self, rows, events):
        """Writes newly drained rows."""
        histograms = self._gradwatch.histograms() if self.log.histogram_freq else None
        self.log.write(rows, events, histograms)

    def on_epoch_end(self, epoch, logs=None):
        """Drains, and draws the heatmap after epochs 1, 2, 4, 8, ..."""
        super().on_epoch_end(epoch, logs)
        if np.log2(epoch + 1).is_integer():
            self.log.heatmap(self._gradwatch.step - 1)

    def on_train_end(self, logs=None):
        """Drains, draws the heatmap, and closes the file."""
        super().on_train_end(logs)
        self.finish()
