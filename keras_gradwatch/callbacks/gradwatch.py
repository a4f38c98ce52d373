"""`GradWatch`: watches, logs, protects and reports."""

import os
from collections.abc import Iterable

from keras_gradwatch.callbacks.history import GradientHistory
from keras_gradwatch.callbacks.observing import TRUST_BOUND
from keras_gradwatch.callbacks.responding import RespondingCallback
from keras_gradwatch.callbacks.writing import Writing
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.controller.responses import CutRate, Halt, Hold, Rewind, Skip
from keras_gradwatch.detectors import (
    Collapse,
    DeadUnits,
    Divergence,
    NonFinite,
    UpdateRatio,
    Vanishing,
)
from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.loggers import Logger
from keras_gradwatch.methods import frequency, local_path, number, whole
from keras_gradwatch.policies import named
from keras_gradwatch.policies.base import Policy
from keras_gradwatch.reports.diagnosis.data import certain
from keras_gradwatch.statistics.names import NAMES

# A bad batch says nothing about the learning rate; this many in a row may.
PATIENCE = 3


class GradWatch(Writing, RespondingCallback):
    """Watches, logs and protects a run, and reports what happened.

    | what happens | what `GradWatch` does |
    |---|---|
    | a gradient is NaN or infinite | the update is skipped |
    | only the loss is NaN or infinite | reported only; the update is applied |
    | the norm or the loss spikes, and is also far above its first values | the update \
is skipped; after three separate spikes, values up to twice the largest of them are \
neither reported nor skipped |
    | three or more spikes in a row, very unlikely to be chance | the learning rate is \
also cut; after 200 steps without a spike the cut is undone |
    | a detector trips in `max_events` steps in a row | training ends, with a report |
    | an update larger than `trust_bound` times the weights, and then a much worse \
loss | the weights are restored, and updates are limited to a trust region until a \
trial without the limit succeeds; while the loss does not fall, learning rate and \
trust radius shrink |
    | a measured update of a kernel is not finite, or more than 1,000 times its norm | \
reverted at once; later updates are limited as above |
    | the network collapses, or the loss stays far above its earlier level | the \
run is rolled back to its last healthy snapshot, up to `max_rewinds` times (see \
`RewindOnExplosion`) |
    | gradients vanish, or most units are dead | reported only |

    Updates are measured, which needs a copy of the weights, in the first `dense_steps`
    steps and after each event, in every 50th step, and within 6 steps after the
    learning rate has risen by 50%.

    Args:
        log_dir: Directory for TensorBoard, as in `GradientTensorBoard`. If `None`, no
            logs are written. Defaults to `None`.
        policy: A `policies.Policy` that changes the gradients, its name, or a number,
            as in `GradientClipping`. If `None`, gradients are not changed. Defaults to
            `None`.
        detector: `detectors.Detector` that replaces the default ones (spikes of the
            norm and the loss, the trust bound, vanishing gradients, dead units). With
            any detector, steps with non-finite gradients are skipped, and the run is
            rolled back if it collapses or diverges. Defaults to `None`.
        trust_bound: Value of ‖Δw‖ / ‖w‖ of a kernel, > 0, above which an update is
            judged by the next loss, and reverted if that is much worse. If `None`, no
            update is judged. It is part of the default detectors: with
            your own `detector`, add `detectors.UpdateRatio` instead. Defaults to `0.5`.
        factor: Factor by which a cut after a series of spikes multiplies the learning
            rate, between 0 and 1. (A rollback multiplies it by 0.25, the trust region
            by 0.5.) Defaults to `0.5`.
        cooldown: Steps after such a cut in which no further one is made, >= 0. Defaults
            to `10`.
        min_lr: The learning rate is never cut below this, >= 0. If `0`, it is never
            cut below a thousandth of its original value. Defaults to `0.0`.
        max_events: Number of steps in a row, >= 1, in which a detector trips, after
            which `fit` ends. Defaults to `100`.
        max_rewinds: Maximum number of rollbacks in one `fit`, >= 0. If `0`, no
            snapshots are kept. Defaults to `3`.
        snapshot_freq: Steps between two snapshots, >= 1. Defaults to `200`.
        dense_steps: Number of steps, at the start and after each event, >= 0, for which
            the host reads every step before the next one begins. If `None`, it always
            does. Defaults to `100`.
        sample_freq: Steps between two samples of all statistics of all variables, >= 1.
            If `None`, only what the detectors read is sampled, every 50th step.
            Defaults to `None`.
        update_freq: Steps between two points, `"batch"` or `"epoch"`, as in
            `GradientTensorBoard`. Defaults to `50`.
        per_variable: Whether every variable is logged, as in `GradientTensorBoard`.
            Defaults to `False`.
        histogram_freq: Steps between histograms, as in `GradientTensorBoard`. If `0`,
            there are none. Defaults to `0`.
        include: Which variables are logged individually, as in `GradientTensorBoard`.
            If `None`, all of them. Defaults to `None`.
        history_steps: Number of steps that `.history` keeps, the newest ones, >= 1.
            Defaults to `1000`.
        state_dir: Local directory in which the state is saved for a new process that
            continues this run, as in `KeepState`. With a `state_dir` or a `log_dir`,
            the files of the first 10 incidents of a `fit` are written to `events` in
            it, and the report to `report.txt` (see the guide on forensics). If `None`,
            it is `gradwatch` in `log_dir` if there is one. Defaults to `None`.
        save_batch: Largest size in bytes, >= 1, of a batch that is saved if an incident
            begins in it. Only dense numeric tensors are supported. On TensorFlow, it
            works neither under XLA (the default of Keras on a GPU; use
            `jit_compile=False`) nor under a `tf.distribute` strategy. A printed line
            says why a batch is not saved. If `None`, none is saved. Defaults to `None`.
        verbose: `0` prints nothing; `1` prints one line for each of the first three
            events of each kind and action and, at the end of a `fit` with events, the
            total of each kind that had more, and the report. Defaults to `1`.
        log: `loggers.Logger`, or a list of them, which receives the same data as
            TensorBoard, with or without a `log_dir`. Defaults to `None`.
        log_batches: Whether to add `grad_norm` and `explosions` to the batch logs,
            where every callback can read them. With `steps_per_execution` > 1, they
            are the mean and the sum, respectively, over the steps of the execution.
            Each step is read before the next one begins. Defaults to `False`.

    Attributes:
        history: `GradientHistory` of the newest `history_steps` steps.
        events: List of the newest 1,000 `Event`s.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If `policy` or `detector` has the wrong type.

    Example:

    ```python
    watch = keras_gradwatch.callbacks.GradWatch(log_dir="logs")
    model.fit(x, y, callbacks=[watch])
    text = watch.report()  # `fit` prints it, too, if a detector tripped
    ```
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str] | None = None,
        policy: Policy | str | float | None = None,
        detector: Detector | None = None,
        trust_bound: float | None = TRUST_BOUND,
        factor: float = 0.5,
        cooldown: int = 10,
        min_lr: float = 0.0,
        max_events: int = 100,
        max_rewinds: int = 3,
        snapshot_freq: int = 200,
        dense_steps: int | None = 100,
        sample_freq: int | None = None,
        update_freq: int | str = 50,
        per_variable: bool = False,
        histogram_freq: int = 0,
        include: str | Iterable[str] | None = None,
        history_steps: int = 1000,
        state_dir: str | os.PathLike[str] | None = None,
        save_batch: int | None = None,
        verbose: int = 1,
        log: Logger | list[Logger] | None = None,
        log_batches: bool = False,
    ) -> None:
        super().__init__(detector, verbose)
        self.policy = named.get(policy)
        if detector is not None and trust_bound not in (None, TRUST_BOUND):
            raise ValueError(
                "GradWatch: `trust_bound` belongs to the default detectors. With a "
                "`detector` of your own use `detector | detectors.UpdateRatio(...)`. "
                f"Received: trust_bound={trust_bound!r} and detector={detector!r}"
            )
        if detector is None and trust_bound is not None:
            number(self, "trust_bound", trust_bound, above=0)
            self.detectors += (UpdateRatio(trust_bound),)
        self._in_step = self.detectors
        self.max_rewinds = whole(self, "max_rewinds", max_rewinds)
        self.snapshot_freq = whole(self, "snapshot_freq", snapshot_freq, at_least=1)
        self._lasting = (Collapse(), Divergence()) if self.max_rewinds else ()
        self.detectors += self._lasting
        if detector is None:
            self.reported = (Vanishing(), DeadUnits())
        self.factor = number(self, "factor", factor, above=0, below=1)
        self.cooldown = whole(self, "cooldown", cooldown)
        self.min_lr = number(self, "min_lr", min_lr, at_least=0)
        self.max_events = whole(self, "max_events", max_events, at_least=1)
        self.dense_steps = float("inf")
        if dense_steps is not None:
            self.dense_steps = whole(self, "dense_steps", dense_steps)
        if sample_freq is not None:
            sample_freq = whole(self, "sample_freq", sample_freq, at_least=1)
        self._history_options = (sample_freq, history_steps)
        self.history = self._new_history()
        self._point_freq = frequency(self, update_freq) or 50
        self.update_freq = min(50, self._point_freq)
        self.set_log(log, log_batches, update_freq, per_variable, include)
        logs = log_dir is not None or self._loggers is not None
        self._per_variable = bool(per_variable) and logs
        if log_dir is not None:
            self.set_board(log_dir, update_freq, per_variable, histogram_freq, include)
        if state_dir is not None:
            self.state_dir = local_path(self, "state_dir", state_dir)
            self.record_dir = self._log_dir or self.state_dir
        if save_batch is not None:
            self.save_batch = whole(self, "save_batch", save_batch, at_least=1)
            if self.state_dir is None:
                raise ValueError(
                    "GradWatch: `save_batch` needs a directory to write to: give a "
                    f"`log_dir` or a `state_dir`. Received: save_batch={save_batch!r}"
                )

    def _new_history(self):
        sample_freq, steps = self._history_options
        return GradientHistory(sample_freq or 50, max_steps=steps)

    def forget(self):
        """Drops what is known of the runs so far."""
        super().forget()
        self.history = self._new_history()

    @property
    def _samples(self):
        """Whether all statistics of all variables are asked for."""
        return self._history_options[0] is not None or self._per_variable

    def _sample_freq(self):
        if self._per_variable:
            # A point shows all statistics of its step.
            return min(self.history.sample_freq, self._point_freq)
        return self.history.sample_freq

    def request(self):
        at_once = tuple(d for d in self._in_step if "update_ratio" in d.reads)
        in_turn = tuple(d for d in self._in_step if d not in at_once)
        responses = []
        if self._lasting:
            settings = self.snapshot_freq, self.max_rewinds
            responses.append(Rewind(self._lasting, *settings, min_lr=self.min_lr))
        if in_turn:
            cut = (self.factor, self.cooldown, self.min_lr, PATIENCE)
            responses.append(Skip(in_turn))
            # What is not finite says nothing about the learning rate.
            growing = tuple(d for d in in_turn if not isinstance(d, NonFinite))
            responses.append(CutRate(growing, *cut, lends=True))
        responses.append(Halt((NonFinite(), *in_turn), self.max_events, in_a_row=True))
        if at_once:
            responses.append(Hold(at_once, self.min_lr))
        return Request(
            "GradWatch",
            policy=self.policy,
            detectors=self.reported,
            responses=tuple(responses),
            statistics=NAMES if self._samples else (),
            sample_freq=self._sample_freq(),
            dense_steps=self.dense_steps,
            histogram_freq=self.board.histogram_freq if self.board else 0,
            # Each directory belongs to this run alone; one of another run is not used.
            state_dirs=tuple(filter(None, (self.state_dir, self._log_dir))),
            save_batch=self.save_batch,
        )

    def set_model(self, model):
        """Watches `model`; the records of an earlier model are dropped."""
        if self.model is not None and self.model is not model:
            self.history = self._new_history()
        super().set_model(model)
        self.history.follow(self._gradwatch)
        self._eventful = False  # whether anything tripped in this `fit`

    def _recorded(self):
        if self.record_dir is not None:
            try:
                return super()._recorded()
            except ValueError:  # it could not be written; a line was printed
                pass
        return self._remembered(self.history)

    def on_begin(self):
        """Prints settings and data that are wrong for any run."""
        super().on_begin()
        if self.verbose:
            for found in certain(self.summary):
                self._gradwatch.recorder.say_once(f"{found.words}. {found.advice}")

    def on_rows(self, rows, events):
        """Keeps, logs and prints what was recorded."""
        before = len(self.events)
        super().on_rows(rows, events)
        self._eventful |= len(self.events) > before
        del self.events[:-1000]
        self.history.append(rows, events)

    def on_train_end(self, logs=None):
        """Drains, closes the logs, and prints the report if something happened."""
        super().on_train_end(logs)
        if self.verbose and self._eventful:
            self._gradwatch.recorder.say(self.report())
