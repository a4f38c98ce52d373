"""The train function of a watched model: runs the step that the controller chooses."""

import contextlib
import gc

import keras

from keras_gradwatch.backends.batch import RecentBatches
from keras_gradwatch.keras_hooks.jax_state import (
    another,
    one_group_more,
    state_in_hand,
)
from keras_gradwatch.keras_hooks.optimizers import held_optimizers, look_again


def make_dispatcher(model, monitor, make):
    """Sets `model.train_function`, as `make_train_function` does.

    `make` is the model's own `make_train_function` with its arguments.
    """
    look_again(model)
    if monitor.asked and not held_optimizers(model):
        raise ValueError(
            f"The model {model.name!r} has no optimizer, so it has no gradients to "
            "watch. Call `model.compile(optimizer=...)` before `fit`."
        )
    on_jax = keras.config.backend() == "jax"
    monitor.backend.check(model)
    if monitor.prepare() or make.args or make.keywords:
        model.train_function = None
    if on_jax:
        monitor.make_variables(model)
        if monitor.store.access.carry(monitor.store.every):  # there are new ones
            model.train_function = None
    if isinstance(model.train_function, Dispatcher):
        return

    carried = monitor.store.access.carried if on_jax else []

    def make_function():
        step = model.train_step
        if on_jax:
            # Past Keras's tracking, as in `watch`.
            object.__setattr__(model, "train_step", another(step))
        model.train_function = None
        try:
            with one_group_more(model, carried) if on_jax else contextlib.nullcontext():
                make()
            return model.train_function
        finally:
            object.__setattr__(model, "train_step", step)
            model.train_function = dispatcher

    kind = StateDispatcher if on_jax else Dispatcher
    dispatcher = kind(model, monitor, make_function)
    dispatcher.function("light")


class Dispatcher:
    """The callable in `model.train_function`.

    Each step is compiled when it is first run: the light step by a healthy run, the
    full step once a run is in trouble. `make` returns a new train function of Keras.
    """

    def __init__(self, model, monitor, make):
        self._monitor, self._make = monitor, make
        self._steps = int(getattr(model, "steps_per_execution", 1) or 1)
        self._functions = {}
        self._traced = set()

    def __call__(self, iterator):
        controller, monitor = self._monitor.controller, self._monitor
        if not monitor.model.built:
            # Or there would be no weights yet to compare the first update with.
            monitor.backend.build_for(monitor.model, iterator)
        iterator = monitor.look(iterator)
        controller.before_step()
        keeps = monitor.live and isinstance(monitor.batches, RecentBatches)
        if monitor.plan.save_batch and keeps:
            monitor.batches.note(controller.next, iterator[0])
        with controller.rates.in_force():
            logs = self.run(iterator)
        controller.after_step(self._steps)
        return monitor.batch_logs(logs)

    def run(self, *arguments):
        """Runs the chosen step; an exception is noted for the report."""
        variant = self._monitor.variant
        traced = variant in self._traced
        try:
            function = self.function(variant)
            with contextlib.nullcontext() if traced else collector_paused():
                returned = function(*arguments)
        except Exception as error:
            self._monitor.note_error(error)
            raise
        self._traced.add(variant)
        return returned

    def function(self, variant):
        """Returns the train function of the `"light"` or the `"full"` step."""
        if variant not in self._functions:
            with self._monitor.store.access.scope():
                self._functions[variant] = self._make()
        return self._functions[variant]


class StateDispatcher(Dispatcher):
    """The dispatcher on JAX, where a state is passed from step to step."""

    def __call__(self, state, iterator):
        with state_in_hand(self._monitor.model):
            return self._call(state, iterator)

    def _call(self, state, iterator):
        access = self._monitor.store.access
        access.attach(state)
        try:
            controller = self._monitor.controller
            iterator = self._monitor.look(iterator)
            controller.before_step()
            if self._monitor.live and self._monitor.plan.save_batch:
                batches = self._monitor.batches
                iterator = batches.noting(iterator, controller.next)
            with controller.rates.in_force():
                logs, state = self.run(access.state, iterator)
                access.attach(state)
            controller.after_step(self._steps)
            logs = self._monitor.batch_logs(logs)
            return logs, access.detach()
        except BaseException:
            access.give_back()
            raise


@contextlib.contextmanager
def collector_paused():
    """Pauses Python's cyclic garbage collector.

    Tracing a step creates many objects that stay alive. Each full collection that they
    trigger visits all objects of the process, including those of TensorFlow or JAX.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
