"""One training step of a model, from before it begins until it has been recorded."""

import contextlib

import keras

from keras_gradwatch.keras_hooks import loss_scale
from keras_gradwatch.keras_hooks.interception import intercept
from keras_gradwatch.keras_hooks.model_state import (
    newly_nonfinite,
    nonfinite_state,
    restorable,
)
from keras_gradwatch.keras_hooks.optimizers import held_optimizers, trained_by
from keras_gradwatch.statistics import histograms
from keras_gradwatch.train_step import output_losses, row
from keras_gradwatch.train_step.application import MAX_APPLICATIONS, any_of
from keras_gradwatch.train_step.gradients import collect, written
from keras_gradwatch.train_step.logs import logs_without_skipped
from keras_gradwatch.train_step.losses import Differentiated, LoggedLoss
from keras_gradwatch.train_step.state import StepState
from keras_gradwatch.train_step.step import full_step, light_step


class WatchedStep:
    """One training step; created before it begins, and finished after it has run.

    While the model's own `step` runs, methods of this object are called in place of
    those of the optimizers and the model, and `differentiated` whenever a gradient is
    taken.
    """

    def __init__(self, model, monitor, runner, step):
        self.model, self.monitor, self.runner = model, monitor, runner
        self._plan = plan = monitor.plan
        self._step = step
        self._stock = monitor.steps_are_stock
        self._state = None  # `StepState`, once the model is known to be built
        self._results = []
        self._losses = {}  # id(optimizer) -> its loss, and what it is scaled by
        self._differentiated = Differentiated()
        self._loss = None  # the last one that `compute_loss` returned
        # For each application: whether its loss is known, optimizer and variables.
        self._known, self._applied = [], []
        self._before = []  # for each application: variables and their values before it
        self._applying = False
        with runner.scope():
            self._kept = restorable(model) if plan.protects else []
            self._kept_values = runner.copies(self._kept)
            self._nonfinite = None
            self._logged = None
            if not self._stock and runner.count == 1 and monitor.reads_logs:
                self._logged = LoggedLoss(model, runner)
            if any(loss_scale.dynamic(o) for o in held_optimizers(model)):
                self._nonfinite = nonfinite_state(model)
        monitor.hook_schedules()

    def run(self, *arguments):
        """Runs the model's own step, and watches what it applies."""
        stock, backend = self._stock, self.monitor.backend
        seeing = contextlib.nullcontext() if stock else backend.differentiation()
        with intercept(self.model, self), seeing:
            return self._step(*arguments)

    # -- called in the place of Keras's methods ------------------------------------

    def scale_loss(self, optimizer, loss):
        """Notes the loss that is differentiated for `optimizer`."""
        if not self._applying:
            scale = loss_scale.loss_scale(optimizer)
            seen = self.runner.seen
            self._losses[id(optimizer)] = (
                seen(loss),
                None if scale is None else seen(scale),
            )

    def differentiated(self, targets, gradients=(), only_these=False):
        """Notes what was differentiated; see `Differentiated.note`."""
        if not self._applying:
            self._differentiated.note(self.runner, targets, gradients, only_these)

    def compute_loss(self, loss):
        """Notes the loss that the model computed."""
        self._loss = self.runner.seen(loss)

    def apply(self, optimizer, apply, gradients, variables=None):
        """Stands in for `optimizer.apply`."""
        gradients = list(gradients)
        if self._applying:
            return apply(gradients, variables)
        if all(g is None for g in gradients):
            with self.runner.scope():  # nothing to see, or Keras's own error
                return self.runner.own(apply)(gradients, variables)
        if variables is None:
            variables = trained_by(optimizer)
        variables, apply = list(variables), self.runner.own(apply)
        self._applying = True
        try:
            with self.runner.scope():
                self._build(optimizer, variables)
                self._watch(optimizer, apply, gradients, variables)
        finally:
            self._applying = False
        return None

    # -- one application -----------------------------------------------------------

    def _watch(self, optimizer, apply, gradients, variables):
        runner, plan, monitor = self.runner, self._plan, self.monitor
        monitor.build(self.model, variables)
        if self._state is None:
            self._state = StepState(monitor)
        loss, scale = self._loss_of(optimizer, gradients)
        newly = None
        if self._nonfinite is not None and loss_scale.dynamic(optimizer):
            newly = newly_nonfinite(self._nonfinite, self.model)
        index = min(len(self._results), MAX_APPLICATIONS - 1)
        application = collect(
            runner, index, optimizer, apply, gradients, variables, loss, scale, newly
        )
        self._check(application)
        self._known.append(application.loss is not None)
        self._applied.append((optimizer, application.trained))
        if plan.protects and not self._stock:
            changed = written(application)
            self._before.append((changed, runner.copies(changed)))
        step = full_step if monitor.variant == "full" else light_step
        earlier = [result.skip for result in self._results]
        self._results.append(step(runner, self._state, application, earlier))
        names = monitor.names_of(application.trained)
        if plan.histogram_freq and index == 0:
            histograms.sample(self._state, names, application.shown)

    def _loss_of(self, optimizer, gradients):
        """Returns `(loss, scale)` of an application; None for what is unknown."""
        if id(optimizer) in self._losses:
            return self._losses[id(optimizer)]
        loss = self._differentiated.loss_of(gradients)
        return self._loss if loss is None else loss, None

    def _build(self, optimizer, variables):
        """Builds an optimizer that `apply` would otherwise build inside a branch.

        In the graph, as in `apply`: its assignments are part of the stock Keras step.
        """
        if not optimizer.built:
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(variables)
            optimizer.built = True
            # A `MultiOptimizer` may have its members only now.
            self.monitor.hook_schedules()

    def _check(self, application):
        lengths = application.window.lengths
        if self._plan.protects and len(lengths) > 1:
            raise ValueError(
                "keras_gradwatch can protect a MultiOptimizer only if all its members "
                "have the same `gradient_accumulation_steps`. "
                f"Received: {sorted(lengths)} (1: none)"
            )

    # -- the end of the step -------------------------------------------------------

    def finish(self, logs, data):
        """Records the step, and returns its logs; a skipped batch leaves no trace."""
        with self.runner.scope():
            seen = None
            if self._plan.protects and not (
                self._stock and reports_metrics(self.model)
            ):
                seen = self.model.get_metrics_result()
            self._add_logged_loss(logs)
            self._record()
            if self.runner.count == 1:
                output_losses.note(self.model, lambda: self.monitor.variable("losses"))
            if self._plan.protects and self._results:
                skipped = self._skipped()
                self.runner.restore(skipped, self._kept, self._kept_values)
                self._take_back()
                logs = logs_without_skipped(
                    self.model, self.monitor, logs, seen, skipped
                )
            trace = getattr(self.monitor.batches, "trace", None)
            if self._plan.save_batch and trace is not None:
                events = [result.alert & ~result.overflow for result in self._results]
                trace(self.model, self._state, any_of(events), data)
            return logs

    def _add_logged_loss(self, logs):
        """Takes the loss from the logs if the only application does not know it."""
        self.monitor.reads_logs = self._known == [False]
        if self._known == [False] and self._logged is not None:
            loss = self._logged.of(logs)
            if loss is not None:
                self._known = [True]
                (result,) = self._results
                scalars = row.with_loss(result.scalars, loss)
                self._results = [result._replace(scalars=scalars)]
        self.monitor.losses_known = self._known

    def _record(self):
        """Writes the row of the step, and counts it."""
        monitor = self.monitor
        monitor.build(self.model, [])
        state = self._state or StepState(monitor)
        every = monitor.layout.variables
        named = [monitor.names_of(trained) for _, trained in self._applied]
        places = [[every.index(name) for name in names] for names in named]
        line = row.of_step(monitor.layout, self._results, places)
        monitor.write_row(state.number, line)
        monitor.variable("step").assign(self.runner.after(state.number + 1, line))
        monitor.note_traced(places, self._applied)

    def _skipped(self):
        """Returns whether the batch must leave no trace in the model's state."""
        skipped = any_of([result.skip for result in self._results])
        if self._nonfinite is not None and self.runner.state_comes_late:
            # An overflow of the loss scale is no event, but must not do this.
            overflow = any_of([result.overflow for result in self._results])
            newly = newly_nonfinite(self._nonfinite, self.model)
            skipped = skipped | (overflow & (newly > 0))
        return skipped

    def _take_back(self):
        """Undoes earlier updates of the step if a later one is skipped."""
        skipped = any_of([result.skip for result in self._results])
        for index in reversed(range(len(self._before) - 1)):
            later = skipped & ~self._results[index].skip
            self.runner.restore(later, *self._before[index])


def reports_metrics(model):
    """Returns whether the logs of a stock step are the model's metrics."""
    own = getattr(model.compute_metrics, "__func__", None)
    return own is keras.Model.compute_metrics
