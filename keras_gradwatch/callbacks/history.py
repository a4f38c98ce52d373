"""All recorded steps as arrays."""

from keras_gradwatch.callbacks.logging import Logging
from keras_gradwatch.callbacks.observing import ObservingCallback
from keras_gradwatch.callbacks.showing import Showing
from keras_gradwatch.loggers import Logger
from keras_gradwatch.methods import whole
from keras_gradwatch.records.history import History
from keras_gradwatch.statistics.names import NAMES


class GradientHistory(Logging, Showing, ObservingCallback, History):
    """Keeps every statistic of every step in memory, over all `fit` calls.

    It only observes. All detectors of `GradWatch` run; `events` contains what they
    found, and `report()` explains it. A stock step takes 4·(24 + 8·V) + 8 bytes of
    memory for V variables, a custom one 280 bytes more. `GradWatch.history` only keeps
    the newest steps.

    Args:
        sample_freq: Steps between two samples of the statistics that cost a further
            pass (all but `norm` and `nonfinite_count`), >= 1. The first step is
            always sampled. If several callbacks ask for samples, the smallest value
            applies. Defaults to `1`.
        max_steps: Number of steps to keep, the newest ones, >= 1. If `None`, all steps.
            Defaults to `None`.
        log: `loggers.Logger`, or a list of them, which receives the same data as
            TensorBoard. Defaults to `None`.
        log_batches: Whether to add `grad_norm` and `explosions` to the batch logs,
            where every callback can read them. With `steps_per_execution` > 1, they
            are the mean and the sum, respectively, over the steps of the execution.
            Each step is read before the next one begins. Defaults to `False`.
        update_freq: Steps between two points of `log`, as in `GradientTensorBoard`.
            Defaults to `50`.

    Attributes:
        steps: int64 array [T], from 0, monotonic over `fit` calls.
        global_norm: float32 array [T], before clipping.
        clipped_norm: float32 array [T], after clipping.
        loss: float32 array [T], each step's own loss; NaN where it is unknown.
        learning_rate: float32 array [T], the effective learning rate of each step.
        applied: bool array [T], False where the update was skipped or reverted.
        held: bool array [T], True where the trust region limited the update.
        trust_radius: float32 array [T], the limit on ‖Δw‖ / ‖w‖ of each kernel; NaN
            where there was none.
        loss_scale: float32 array [T], the loss scale; NaN where there is none.
        overflowed: bool array [T], True where a dynamic loss scale overflowed and its
            optimizer skipped the update; such a step is not an event.
        variables: List of the V names of the variables.
        statistics: Dict of name (see `statistics.NAMES`) to float32 array [T, V]; NaN
            where a statistic was not sampled, or a variable has no gradient.
        events: List of `Event`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    history = keras_gradwatch.callbacks.GradientHistory()
    model.fit(x, y, callbacks=[history])
    history.statistics["norm"][:, history.variables.index("dense/kernel")]
    ```
    """

    def __init__(
        self,
        sample_freq: int = 1,
        max_steps: int | None = None,
        log: Logger | list[Logger] | None = None,
        log_batches: bool = False,
        update_freq: int | str = 50,
    ) -> None:
        ObservingCallback.__init__(self)
        self.sample_freq = whole(self, "sample_freq", sample_freq, at_least=1)
        if max_steps is not None:
            max_steps = whole(self, "max_steps", max_steps, at_least=1)
        History.__init__(self, max_steps)
        self.set_log(log, log_batches, update_freq)
        self._owner = None
        self._monitor = None

    def request(self):
        return self.observing(statistics=NAMES, sample_freq=self.sample_freq)

    def set_model(self, model):
        """Watches `model`.

        Raises:
            ValueError: If the history belongs to another model already.
        """
        if self._owner is not None and self._owner is not model:
            raise ValueError(
                f"This GradientHistory contains the steps of the model "
                f"{self._owner.name!r} and cannot continue with {model.name!r}. "
                "Create a new one for each model."
            )
        self._owner = model
        super().set_model(model)
        self.follow(self._gradwatch)

    def forget(self):
        """Drops all steps."""
        super().forget()
        self._parts = []

    def follow(self, monitor):
        """Includes the steps that are still in the ring of `monitor`."""
        self._monitor = monitor

    def _rows(self):
        # After an interrupted `fit` the last steps are still unread.
        if self._monitor is not None:
            self._monitor.drain()
        return self._parts

    def _recorded(self):
        return self._remembered(self)

    def on_rows(self, rows, events):
        """Appends newly drained rows."""
        super().on_rows(rows, events)
        self.append(rows, events)
