"""The primitives on JAX.

A step is a pure function from state to state. The monitor's variables are a fifth list
in that state, so they are made before the first step. The dispatcher adds it; neither
Keras nor the model's own step sees it.
"""

import contextlib
import functools
import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import keras
import numpy as np
from keras import ops

from keras_gradwatch.backends.access import Access
from keras_gradwatch.backends.batch import RecentBatches
from keras_gradwatch.backends.patching import standing_in
from keras_gradwatch.backends.runner import Runner, values_of
from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.keras_hooks.jax_state import (
    adopt,
    mark_synced,
    state_variables,
)
from keras_gradwatch.keras_hooks.optimizers import trained_by
from keras_gradwatch.tensors.branch import cond
from keras_gradwatch.tensors.processes import (
    Shards,
    everywhere,
    is_alone,
    is_whole,
)

__all__ = [
    "StateAccess",
    "build_for",
    "check",
    "check_strategy",
    "create_variable",
    "differentiation",
    "first_batch",
    "make_access",
    "make_batches",
    "make_runner",
    "on_host",
    "prepare",
    "release",
    "write_row",
]


# Lists in the state that Keras hands to a step.
KERAS_GROUPS = 4


def check(model):
    """Raises where this model cannot be watched in the way it is compiled.

    Raises:
        ValueError: In NNX mode.
    """
    del model
    if getattr(keras.config, "is_nnx_enabled", lambda: False)():
        raise ValueError(
            "keras_gradwatch cannot watch models in Keras's NNX mode. Unset "
            "KERAS_NNX_ENABLED, or call `keras.config.disable_nnx()`."
        )


def check_strategy(model):
    """Nothing: `keras.distribution` is supported."""


def differentiation():
    """Context that records what the traced step differentiates."""
    return standing_in(jax, value_and_grad=_value_and_grad, grad=_grad)


_own_value_and_grad = jax.value_and_grad


def _value_and_grad(fun, argnums=0, has_aux=False, *args, **kwargs):
    own = _own_value_and_grad(fun, argnums, has_aux, *args, **kwargs)

    @functools.wraps(own)
    def differentiate(*args, **kwargs):
        value, gradients = own(*args, **kwargs)
        watched = active()
        if watched is not None:
            loss = value[0] if has_aux else value
            watched.differentiated([loss], jax.tree.leaves(gradients))
        return value, gradients

    return differentiate


def _grad(fun, argnums=0, has_aux=False, *args, **kwargs):
    own = _value_and_grad(fun, argnums, has_aux, *args, **kwargs)

    @functools.wraps(own)
    def differentiate(*args, **kwargs):
        value, gradients = own(*args, **kwargs)
        return (gradients, value[1]) if has_aux else gradients

    return differentiate


def prepare(model, step, *arguments):
    """Nothing: Keras has built the model."""


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


def make_batches(monitor):
    """What keeps the batch in which an incident begins."""
    return RecentBatches(monitor)


def release(model):
    """Removes what stays on a model between steps: nothing."""


def make_access(model):
    """The `Access` to the variables of a model."""
    return StateAccess(model)


def build_for(model, iterator):
    """Nothing: Keras has built the model."""


def first_batch(model, iterator):
    """The batch that comes next, and an iterator that gives it; see TensorFlow's."""
    del model
    if not is_alone():
        return None, iterator
    rest = iter(iterator)
    batch = next(rest, None)
    return batch, rest if batch is None else itertools.chain([batch], rest)


def make_runner(model, state, data):
    """The `Runner` of one step; None where the state has no place for ours."""
    del data
    carried = model.gradwatch.store.access.carried
    return Scoped(model, state, carried) if len(state) > KERAS_GROUPS else None


class StateAccess(Access):
    """Variables between two steps, while Keras holds their values as a state.

    Args:
        model: Function of nothing that gives the watched model.

    Attributes:
        carried: The monitor's variables, the fifth list of a state.
    """

    def __init__(self, model):
        self._model = model
        self.carried = []
        self._state = None  # five lists of arrays, while a state is attached
        self._where = {}  # id(variable) -> its place in the state

    def attach(self, state):
        """Has variables read from, and written to, `state` from now on.

        Args:
            state: Tuple of lists of arrays: Keras's four, or these and ours.
        """
        if len(state) == KERAS_GROUPS:
            state = (*state, [variable.value for variable in self.carried])
        self._state = tuple(list(group) for group in state)

    def carry(self, variables):
        """Notes which variable has which place in a state; while none is attached.

        Args:
            variables: The monitor's.

        Returns:
            Whether they are others than before.
        """
        before, self.carried = self.carried, list(variables)
        self._groups = (*state_variables(self._model()), self.carried)
        self._where = {
            id(v): (g, i)
            for g, group in enumerate(self._groups)
            for i, v in enumerate(group)
        }
        return list(map(id, before)) != list(map(id, self.carried))

    @property
    def state(self):
        """The attached state, a tuple of five lists of arrays."""
        return self._state

    def detach(self):
        """Keras's part of the attached state, which is given up."""
        state, self._state = self._state, None
        adopt(self.carried, state[KERAS_GROUPS])
        return state[:KERAS_GROUPS]

    def give_back(self):
        """Has the variables hold the values of the attached state again.

        Keras has taken them away, and an error must not lose them.
        """
        state, self._state = self._state, None
        if state is None or any(v.is_deleted() for group in state for v in group):
            return  # donated to a step that did not return
        for variables, values in zip(self._groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        mark_synced(self._model())

    def _array(self, variable):
        if self._state is None or id(variable) not in self._where:
            return None
        group, index = self._where[id(variable)]
        return self._state[group][index]

    def sync(self):
        model = self._model()
        if model is not None and self._state is None:
            model.jax_state_sync()

    def read(self, variable):
        array = self._array(variable)
        if array is not None:
            return np.array(array)
        self._sync_for(variable)
        return super().read(variable)

    def write(self, variable, value):
        array = self._array(variable)
        if array is None:
            self._sync_for(variable)
            variable.assign(value)
            return
        group, index = self._where[id(variable)]
        self._state[group][index] = _like(value, array)

    def _sync_for(self, variable):
        # Ours hold their values all the time.
        if not any(variable is own for own in self.carried):
            self.sync()

    def is_whole(self, variable):
        return is_whole(self._present(variable))

    def is_ready(self, variable):
        array = self._array(variable)
        # Several processes must read at the same steps.
        return is_alone() and (array is None or _on_cpu(array) or array.is_ready())

    def scope(self):
        if self._state is None:
            self.sync()
            return contextlib.nullcontext()
        pairs = [
            pair
            for variables, values in zip(self._groups, self._state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        return keras.StatelessScope(pairs, initialize_variables=False)

    def device_copies(self, variables):
        return [_copy(self._present(variable)) for variable in variables]

    def _present(self, variable):
        """The present array of a variable."""
        array = self._array(variable)
        return variable.value if array is None else array

    def update_norms(self, old, variables):
        arrays = [self._present(variable) for variable in variables]
        # NumPy where it can look at the same memory: nothing has to be compiled.
        xp = np if all(map(_on_cpu, arrays)) and is_alone() else jax.numpy
        norms = []
        with np.errstate(over="ignore", invalid="ignore"):
            for before, after in zip(old, arrays, strict=True):
                before = xp.asarray(before, "float32").ravel()
                moved = xp.asarray(after, "float32").ravel() - before
                norms += [xp.vdot(before, before), xp.vdot(moved, moved)]
            norms = np.sqrt(np.asarray(xp.stack(norms)))
        return norms[::2], norms[1::2]

    def put_back(self, variables, copies):
        for variable, copy in zip(variables, copies, strict=True):
            self.write(variable, copy)

    def host_copies(self, variables):
        if self._state is None:
            return super().host_copies(variables)
        return [Shards.of(self._present(variable)) for variable in variables]

    def put_host_copies(self, variables, copies):
        if self._state is None:
            super().put_host_copies(variables, copies)
            return
        for variable, copy in zip(variables, copies, strict=True):
            self.write(variable, copy.array() if isinstance(copy, Shards) else copy)


def _copy(array):
    """A copy of an array, where it is.

    On a CPU by NumPy: nothing has to be compiled for each shape.
    """
    if is_alone() and _on_cpu(array) and array.is_fully_addressable:
        return np.array(array)
    return jax.numpy.array(array)


def _on_cpu(array):
    return next(iter(array.devices())).platform == "cpu"


def _like(value, array):
    """A value as an array on the devices of another one."""
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value, array.dtype)
    if not is_alone():
        return everywhere(value, array.sharding)
    # A compiled step is compiled again for an array that is bound to a device.
    return jax.device_put(value, array.sharding if array.committed else None)


class Scoped(Runner):
    """Variables in a step that is a pure function.

    Args:
        model: The watched model.
        state: Tuple of five lists of arrays: as Keras hands it to a step, and ours.
        carried: The variables of the fifth list.
    """

    state_comes_late = True

    def __init__(self, model, state, carried):
        self._groups = (*state_variables(model), carried)
        mapping = [
            pair
            for variables, values in zip(self._groups, state, strict=True)
            for pair in zip(variables, values, strict=True)
        ]
        self._scope = keras.StatelessScope(mapping, initialize_variables=False)

    def scope(self):
        return self._scope

    def arguments(self, state, data):
        return state[:KERAS_GROUPS], data

    def logs(self, returned):
        logs, state = returned
        for variables, values in zip(self._groups, state, strict=False):
            for pair in zip(variables, values, strict=False):
                self._scope.add_update(pair)
        return logs

    def result(self, logs):
        return logs, tuple([self._present(v) for v in group] for group in self._groups)

    def stateless_apply(self, watched, optimizer, apply, state, gradients, weights):
        """Stands in for `optimizer.stateless_apply`.

        Args:
            watched: The `WatchedStep`.
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
        trained, kept = trained_by(optimizer), optimizer.variables

        def apply_here(gradients, variables):
            del variables
            new = apply(values_of(kept), gradients, values_of(trained))
            _assign([*trained, *kept], [*new[0], *new[1]])

        for pair in zip([*trained, *kept], [*weights, *state], strict=True):
            self._scope.add_update(pair)
        with learning_rate.pinned(optimizer, self._present):
            watched.apply(optimizer, apply_here, gradients, trained)
        present = self._present
        return [present(v) for v in trained], [present(v) for v in kept]

    def _present(self, variable):
        """The current value of a variable: that in `scope` if there is one."""
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


def _assign(variables, values):
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
