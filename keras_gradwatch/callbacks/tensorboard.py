"""Gradients in TensorBoard."""

import os
from collections.abc import Iterable

from keras_gradwatch.callbacks.observing import ObservingCallback
from keras_gradwatch.callbacks.writing import Writing
from keras_gradwatch.loggers import Logger
from keras_gradwatch.methods import frequency
from keras_gradwatch.statistics.names import NAMES


class GradientTensorBoard(Writing, ObservingCallback):
    """Logs the gradients of the real training steps to TensorBoard.

    It only observes. All detectors of `GradWatch` run; their events are logged, and
    `report()` explains them. The report and the incidents are written to files, as by
    `GradWatch`.

    The steps on the axis are training steps, counted over all `fit` calls. The run
    `gradwatch` in `log_dir` contains these tags:

    | tag | meaning |
    |---|---|
    | `gradwatch/grad_norm` | global gradient norm of the step, before clipping |
    | `gradwatch/grad_norm_clipped` | the same after clipping |
    | `gradwatch/grad_norm_max` | largest finite norm since the last point |
    | `gradwatch/grad_norm_log10`, `gradwatch/grad_norm_clipped_log10` | log₁₀ of the \
norms |
    | `gradwatch/clip_factor` | norm after / norm before clipping |
    | `gradwatch/clipped_share` | fraction of the steps since the last point that were \
clipped |
    | `gradwatch/nonfinite_count` | non-finite gradient values since the last point |
    | `gradwatch/explosions` | steps since the last point in which a detector tripped |
    | `gradwatch/learning_rate` | learning rate in effect in the step |
    | `gradwatch/loss` | the step's own loss |
    | `gradwatch/trust_radius` | limit on ‖Δw‖ / ‖w‖ of each kernel, \
while updates are limited |
    | `gradwatch/held_share` | fraction of the steps since the last point whose update \
was limited |
    | `gradwatch/held_back` | fraction of the step's update that was cut off |
    | `gradwatch/loss_scale` | loss scale of the step, if one is used |
    | `gradwatch/overflows` | overflows of a dynamic loss scale since the last point |
    | `gradwatch/heatmap` | picture: log₁₀ norm, variable × step |
    | `gradwatch/events` | text: the events of a step, with epoch and step |
    | `gradwatch/report` | text: the report |
    | `gradwatch_layer_<rank>_<layer>/<variable>/<statistic>` | with \
`per_variable=True`; the largest layer has rank 1 |
    | `gradwatch_layer_<rank>_<layer>/<variable>/gradient` | histogram, with \
`histogram_freq` > 0 |

    Args:
        log_dir: Local directory of the run; created if missing. If it contains another
            run, this run uses `run-2`, ... in it, or, under keras-tuner, one directory
            per trial.
        update_freq: Steps between two points, >= 1; `"batch"` for each step, `"epoch"`
            for one point per epoch, as in `keras.callbacks.TensorBoard`. The first and
            the last step, each step with an event and the steps around it are always
            written. Defaults to `50`.
        per_variable: Whether every statistic of every variable is logged, too.
            Defaults to `False`.
        histogram_freq: Steps between two histograms of the gradients, >= 0. If `0`,
            there are none. Defaults to `0`.
        include: Regular expression, or a list of them, searched in a variable's path.
            Only matching variables are logged individually. If `None`, all are.
            Defaults to `None`.
        log: `loggers.Logger`, or a list of them, which receives the same data as
            TensorBoard. Defaults to `None`.
        log_batches: Whether to add `grad_norm` and `explosions` to the batch logs,
            where every callback can read them. With `steps_per_execution` > 1, they
            are the mean and the sum, respectively, over the steps of the execution.
            Each step is read before the next one begins. Defaults to `False`.

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
        log_dir: str | os.PathLike[str],
        update_freq: int | str = 50,
        per_variable: bool = False,
        histogram_freq: int = 0,
        include: str | Iterable[str] | None = None,
        log: Logger | list[Logger] | None = None,
        log_batches: bool = False,
    ) -> None:
        super().__init__()
        self.set_board(log_dir, update_freq, per_variable, histogram_freq, include)
        # A point shows all statistics of its step.
        self.sample_freq = frequency(self, update_freq) or 50
        self.set_log(log, log_batches, update_freq, per_variable, include)

    def request(self):
        return self.observing(
            statistics=NAMES if self.board.points.per_variable else (),
            sample_freq=self.sample_freq,
            histogram_freq=self.board.histogram_freq,
            state_dirs=(self._log_dir,),
        )
