"""The seam on JAX: the model's own step, with its `stateless_apply` intercepted.

A step is a pure function from state to state. The monitor's variables ride in that
state as a metric (`Passenger`), so they must be there before the first step: where the
train function has been made anew, the step is rehearsed once, without computing
anything, to find out which variables it needs.
"""

import contextlib
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import keras
import numpy as np
from keras import ops

from keras_gradwatch.backends import common
from keras_gradwatch.backends.branch import cond
from keras_gradwatch.backends.common import (
    check_strategy,
    cut_rates,
    harmed,
    updates,
)
from keras_gradwatch.backends.processes import everywhere
from keras_gradwatch.backends.runner import Runner, values_of
from keras_gradwatch.keras_hooks import learning_rate as rates
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.keras_hooks.state_metric import Passenger
from keras_gradwatch.train_step.watched import Watched

__all__ = [
    "check",
    "check_strategy",
    "create_variable",
    "cut_rates",
    "harmed",
    "make_train_function",
    "on_host",
    "release",
    "run_step",
    "sync",
    "updates",
    "write_row",
]


def check(model):
    """Raises where this model cannot be watched in the way it is compiled.

    Raises:
        ValueError: Without an optimizer; where the model's `metrics` are its own
            choice; in NNX mode.
    """
    common.check(model)
    if _passenger(model) not in model.metrics:
        raise ValueError(
            f"The model {model.name!r} overrides `metrics`, and on JAX the monitor's "
            "variables travel with the metrics. Return "
            "`super().metrics + [your metrics]` from it."
        )
    if getattr(keras.config, "is_nnx_enabled", lambda: False)():
        raise ValueError(
            "keras_gradwatch cannot watch models in Keras's NNX mode. Unset "
            "KERAS_NNX_ENABLED, or call `keras.config.disable_nnx()`."
        )


def on_host(function):
    """Calls `function()` now, outside of the step that is traced.

    Neither the trace nor Keras's scope of the step reaches another thread: there, a
    variable is what it is, and not a part of the computation.
    """
    distribution = keras.distribution.distribution()

    def run():
        # Nor does the distribution.
        with distribution.scope() if distribution else contextlib.nullcontext():
            return function()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def create_variable(name, initial, dtype, model):
    """Makes a variable that every device holds equal.

    Args:
        name: Its name.
        initial: NumPy array, the first value.
        dtype: Of the variable.
        model: The watched model.

    Returns:
        A `keras.Variable` that belongs to no layer.
    """
    del model
    distribution = keras.distribution.distribution()
    initial, layout = np.asarray(initial, dtype), None
    if distribution is not None:
        axes = [None] * initial.ndim
        layout = keras.distribution.TensorLayout(axes, distribution.device_mesh)

    def create():
        value = initial
        if layout is not None:
            value = everywhere(initial, layout.backend_layout)
        return keras.Variable(
            value, dtype=dtype, trainable=False, name=name, layout=layout
        )

    return on_host(create)


def write_row(ring, index, row):
    """Writes `row` into row `index` of the variable `ring`."""
    start = ops.stack([index, ops.zeros_like(index)])
    ring.assign(ops.slice_update(ops.convert_to_tensor(ring), start, row[None]))


def sync(model):
    """Brings the variables up to date that the host is about to read or to write."""
    if model is not None and not _rehearsal.running:
        model.jax_state_sync()


def release(model):
    """Removes what stays on a model and its optimizers between steps."""
    common.release(model)
    model._metrics[:] = [m for m in model._metrics if not isinstance(m, Passenger)]
    _forget_functions(model)


def make_train_function(model, monitor, make):
    """Has Keras make the train function, and rehearses it before its first step.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        make: The model's own `make_train_function`.
    """
    check(model)
    if _board(model, monitor):
        _forget_functions(model)
    make = functools.partial(_make_anew, model, make)
    make()
    if not isinstance(model.train_function, TrainFunction):
        model.train_function = TrainFunction(model, monitor, make)


def run_step(model, monitor, step, state, data):
    """Runs the model's own training step with its gradients captured.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        step: The model's own bound `train_step`.
        state: Tuple of four lists of arrays, as Keras hands it to a step on JAX.
        data: The batch.

    Returns:
        The step's own logs, and the new state.
    """
    if active() is not None:  # a step that calls another watched step
        return step(state, data)
    runner = Scoped(model, state)
    watched = Watched(model, monitor, runner, step)
    logs, state = watched.run(step, state, data)
    runner.take(state)
    logs = watched.finish(step, logs, data)
    return logs, runner.state()


class TrainFunction:
    """A train function that is rehearsed when it gets its first batch.

    Args:
        model: The watched model, with the function that Keras has made.
        monitor: Its `GradientMonitor`.
        make: The model's own `make_train_function`.
    """

    def __init__(self, model, monitor, make):
        self._model, self._monitor, self._make = model, monitor, make
        self._function = model.train_function
        self._rehearsed = False

    def __call__(self, state, iterator):
        if self._rehearsed:
            return self._function(state, iterator)
        first = next(iterator)
        try:
            whole = self._rehearse(state, first)
            self._rehearsed = True
            return self._function(whole, itertools.chain([first], iterator))
        except BaseException:
            self._give_back(state)
            raise

    def _give_back(self, state):
        """Keras has taken the variables' values; an error must not lose them."""
        for variables, values in zip(_state_of(self._model), state, strict=True):
            for variable, value in zip(variables, values, strict=False):
                if not value.is_deleted():  # donated: the step has begun
                    variable.assign(value)

    def _rehearse(self, state, data):
        """Finds out which variables the step needs, and gives them a seat.

        Returns:
            The state with the new variables.
        """
        model, before = self._model, self._model.metrics_variables
        values = {id(v): value for v, value in zip(before, state[3], strict=True)}
        for rider in _passenger(model).riders:
            rider.assign(values[id(rider)])  # the host may look at it
        with _rehearsal:
            if model.run_eagerly or not model.jit_compile:
                # Such a step may do what cannot be traced. It changes no variable.
                model.train_step(state, data)
            else:
                jax.eval_shape(_another(model.train_step), state, data)
        changed = _board(model, self._monitor)
        now = model.metrics_variables
        # A variable that stood in the state has lent its value to it.
        new = {id(v): v.value for v in now if id(v) not in values}
        state = (*state[:3], [(values | new)[id(v)] for v in now])
        if changed:
            # It was made for the state as it was, where that is distributed. Keras
            # looks at the values of the variables, which only the state has now.
            _forget_functions(model)
            with Scoped(model, state).scope():
                self._make()
            self._function, model.train_function = model.train_function, self
        return state


class _Rehearsal:
    """Context in which a step is traced for nothing; only on the main thread."""

    running = False

    def __enter__(self):
        self.running = True

    def __exit__(self, *error):
        self.running = False


_rehearsal = _Rehearsal()


class Scoped(Runner):
    """Variables in a step that is a pure function.

    Args:
        model: The watched model.
        state: Tuple of four lists of arrays, as Keras hands it to a step on JAX.
    """

    state_comes_late = True

    def __init__(self, model, state):
        self._groups = _state_of(model)
        self._ours = {id(v) for v in _passenger(model).riders}
        mapping = [
            pair
            for variables, values in zip(self._groups, state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        self._scope = keras.StatelessScope(mapping, initialize_variables=False)

    def scope(self):
        return self._scope

    @property
    def makes_variables(self):
        return _rehearsal.running

    def take(self, state):
        """Takes the state that the model's own step has returned."""
        for variables, values in zip(self._groups, state, strict=True):
            for variable, value in zip(variables, values, strict=False):
                if id(variable) not in self._ours:
                    self._scope.add_update((variable, value))

    def state(self):
        """The state as it is now, a tuple of four lists of arrays."""
        return tuple([self._present(v) for v in group] for group in self._groups)

    def stateless_apply(self, frame, optimizer, apply, state, gradients, weights):
        """Stands in for `optimizer.stateless_apply`.

        Args:
            frame: The `Frame` of the step.
            optimizer: The optimizer.
            apply: Its own `stateless_apply`.
            state: Values of its variables.
            gradients: The gradients.
            weights: Values of the variables that it trains.

        Returns:
            New values of the latter, and of the optimizer's variables.
        """
        if all(g is None for g in gradients):
            return apply(state, gradients, weights)  # nothing is trained
        trained, kept = optimizer._trainable_variables, optimizer.variables

        def apply_here(gradients, variables):
            del variables
            new = apply(values_of(kept), gradients, values_of(trained))
            _assign([*trained, *kept], [*new[0], *new[1]])

        for pair in zip([*trained, *kept], [*weights, *state], strict=True):
            self._scope.add_update(pair)
        with rates.pinned(optimizer, self._present):
            frame.apply(optimizer, apply_here, gradients, trained)
        present = self._present
        return [present(v) for v in trained], [present(v) for v in kept]

    def _present(self, variable):
        """The value of a variable in the step, also outside of `scope`."""
        value = self._scope.get_current_value(variable)
        return variable.value if value is None else value

    def seen(self, loss):
        # What has no gradient is a value of the trace outside of the derivative's.
        return jax.lax.stop_gradient(loss)

    def reachable(self, value, gradient):
        # A loss within a function that the user's step compiles, or checkpoints, stays
        # within that function's trace. There is no public way to ask for the trace.
        traced = isinstance(value, jax.core.Tracer)
        trace = getattr(value, "_trace", None)
        inner = traced and trace is not getattr(gradient, "_trace", None)
        return None if inner else value

    def copies(self, variables, wanted=None):
        del wanted  # arrays do not change
        return values_of(variables)

    def run_if(self, predicate, function, arguments, written):
        before = values_of(written)

        def run():
            mapping = zip(written, before, strict=True)
            with keras.StatelessScope(mapping, initialize_variables=False) as inner:
                function(arguments)
            return [inner.get_current_value(v) for v in written]

        _assign(written, cond(predicate, run, lambda: before))

    def restore(self, predicate, variables, values):
        pairs = zip(values, values_of(variables), strict=True)
        _assign(variables, [ops.where(predicate, *pair) for pair in pairs])


def _forget_functions(model):
    """Has Keras make its functions anew, which know how many metrics there are."""
    model.train_function = model.test_function = None


def _state_of(model):
    """The variables whose values are the state that Keras hands to a step."""
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )


def _make_anew(model, make):
    """Has Keras make the train function of a step that is traced again."""
    step = model.train_step
    # Past Keras's tracking, as in `watch`.
    object.__setattr__(model, "train_step", _another(step))
    try:
        make()
    finally:
        object.__setattr__(model, "train_step", step)


def _another(step):
    """The same step, another function: JAX remembers the trace of each function."""

    @functools.wraps(step)
    def train_step(*arguments):
        return step(*arguments)

    return train_step


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _board(model, monitor):
    """Has all of the monitor's variables travel with the model's metrics.

    Returns:
        Whether they were others before.
    """
    passenger, before = _passenger(model), _passenger(model).riders
    passenger.carry(monitor.variables)
    return [id(v) for v in before] != [id(v) for v in passenger.riders]


def _passenger(model):
    """The metric that brings the monitor's variables along; made at the first call."""
    # Keras tracks no metric that is set on a built subclassed model, and has no public
    # way to add one: the list is private.
    for metric in model._metrics:
        if isinstance(metric, Passenger):
            return metric
    model._metrics.append(Passenger())
    return model._metrics[-1]
