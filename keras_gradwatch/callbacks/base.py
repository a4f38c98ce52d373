"""The base of all callbacks: watches the model, requests a plan, receives rows."""

import copy
import dataclasses

import keras

from keras_gradwatch.callbacks.siblings import callback_list, trial
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.model import watch
from keras_gradwatch.reports.diagnosis import RunSummary
from keras_gradwatch.reports.diagnosis.model import describe
from keras_gradwatch.reports.forward_pass import explain_batch
from keras_gradwatch.reports.report import Report, explain


class WatchingCallback(keras.callbacks.Callback):
    """Base of the callbacks: it watches the model and receives the recorded rows.

    A subclass overrides `request`, which configures the step, and `on_rows`, which
    receives the recorded rows. No logs are read after a batch: the train function reads
    rows between two steps, and at the end of each epoch.
    """

    # Steps between two drains.
    update_freq = 50

    # Whether each batch's logs get `grad_norm` and `explosions`.
    log_batches = False

    # `RunSummary` of the callbacks that report.
    summary: RunSummary | None = None

    # True in one callback of a model: it does what must be done only once.
    _leads = False

    def request(self):
        """Returns the `Request` of this callback, which configures the step."""
        return Request(type(self).__name__)

    def on_rows(self, rows, events):
        """Receives newly drained `Rows` and their `Event`s."""

    def set_model(self, model):
        """Watches `model`, and requests what this callback needs."""
        if self.model is not None and self.model is not model:
            WatchingCallback.forget(self)  # what belongs to an earlier model
        super().set_model(model)
        watch(model)
        steps_per_execution = int(getattr(model, "steps_per_execution", 1) or 1)
        request = dataclasses.replace(
            self.request(),
            update_freq=1 if self.log_batches else self.update_freq,
            log_batches=self.log_batches,
            steps_per_execution=steps_per_execution,
        )
        self._gradwatch = model.gradwatch
        self._leads = self._gradwatch.ask(request, callback_list())
        if request.state_dirs:
            self._gradwatch.keeper.trial = trial()
        self._gradwatch.recorder.listeners.append(self.on_rows)
        if self.summary is not None:
            self._gradwatch.recorder.at_begin.append(self.on_begin)
        self._begun = False

    def set_params(self, params):
        """Receives the parameters of `fit`, after `set_model`."""
        super().set_params(params)
        bar = (params or {}).get("verbose") in (1, "auto")
        self._gradwatch.recorder.before_line = "\n" if bar else ""

    def summarize(self, rows, events):
        """Adds newly drained rows to `summary`."""
        if not self.summary.model:
            self.on_begin()
        places = self._gradwatch.controller.places
        if len(places) > 1:
            names = rows.layout.variables
            self.summary.model["networks"] = [[names[p] for p in own] for own in places]
        self.summary.take(rows, events)
        bad, monitor = self.summary.first_bad, self._gradwatch
        # Of the first batch alone the data are at hand.
        if bad and bad["step"] == rows.steps[0] == self.summary.first_step:
            bad.setdefault("forward", explain_batch(monitor, monitor.first_data))

    def on_begin(self):
        """Called when the first batch of a run is known, if there is a `summary`."""
        monitor, before = self._gradwatch, self.summary.model
        found = describe(self.model, monitor.store.access.read)
        # Only the first `fit` shows whether the model was trained before this run.
        found["trained"] = before.get("trained", found["trained"])
        self.summary.model = {**found, "data": monitor.first_batch}

    def report(self) -> Report | str:
        """Says what happened so far, why, and what to change, in a few lines."""
        monitor = getattr(self, "_gradwatch", None)
        if self.summary is None:
            name = type(self).__name__
            return f"{name} keeps no report: pass `GradientHistory()` to `fit`, too."
        if monitor is None and self.summary.steps:
            return explain(self.summary)  # of a callback that was copied or loaded
        if monitor is None:
            return "Nothing has been watched yet; pass this callback to `fit` first."
        monitor.drain()
        self.summary.error = monitor.error
        return explain(self.summary, monitor.halted)

    def _repr_html_(self):
        report = self.report()
        return report._repr_html_() if isinstance(report, Report) else report

    # What belongs to a model and its `fit`, and stays behind when a callback is copied.
    _bound = ("_model", "_gradwatch", "_monitor", "_owner", "forensics")

    def __getstate__(self):
        """Returns what a pickle keeps: settings, history, events and report."""
        return {k: None if k in self._bound else v for k, v in vars(self).items()}

    def __deepcopy__(self, memo):
        """Returns a callback with the same settings that has watched nothing yet."""
        new = type(self).__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        new.forget()
        return new

    def forget(self):
        """Drops what is known of earlier runs."""
        if self.summary is not None:
            self.summary = RunSummary()
        if hasattr(self, "events"):
            self.events = []

    def on_first_batch(self):
        """Called before the first batch, once all callbacks have set up the model.

        In `on_train_begin`, a later callback may not have restored its state yet.
        """

    def on_train_batch_begin(self, batch, logs=None):
        """Begins the first step of a `fit`."""
        if not self._begun:
            self._begun = True
            if self._leads:
                self._gradwatch.drain()
                self._gradwatch.begin_steps()
            self.on_first_batch()
            if self.summary is not None:
                self.summary.begin_fit()

    def on_test_begin(self, logs=None):
        """Ends the epoch of a `fit`; outside of one, withdraws the requests."""
        self._gradwatch.cancel()
        if self._leads and self._begun:
            self._gradwatch.controller.end_epoch()

    def on_predict_begin(self, logs=None):
        """Withdraws the requests outside of a `fit`."""
        self._gradwatch.cancel()

    def on_epoch_begin(self, epoch, logs=None):
        """Begins the epoch's sums."""
        if self._leads:
            self._gradwatch.drain()
            self._gradwatch.recorder.begin_epoch(epoch + 1)
            params = self.params or {}
            is_last = epoch + 1 >= params.get("epochs", 1)
            self._gradwatch.controller.begin_epoch(params.get("steps"), is_last)
        if self.summary is not None:
            self.summary.begin_epoch()

    def on_epoch_end(self, epoch, logs=None):
        """Adds `grad_norm` and `explosions` to the epoch's logs."""
        self._gradwatch.drain()
        if self._leads:
            self._gradwatch.controller.end_epoch()
            self._gradwatch.keep(epoch_end=True)
        if logs is not None:
            for key, value in self._gradwatch.recorder.epoch_sums.logs().items():
                logs.setdefault(key, value)

    def on_train_end(self, logs=None):
        """Reads the last steps, and releases what the callbacks of this `fit` use."""
        self._gradwatch.drain()
        self._gradwatch.recorder.sum_up()
        self._gradwatch.release()
