"""The primitives on JAX.

A step is a pure function from state to state. The dispatcher adds the monitor's
variables as a fifth list, which neither Keras nor the model's own step sees.
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
from keras_gradwatch.backends.base import Backend
from keras_gradwatch.backends.runner import Runner, values_of
from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.keras_hooks.jax_state import (
    adopt,
    mark_synced,
    state_variables,
)
from keras_gradwatch.keras_hooks.optimizers import trained_by
from keras_gradwatch.keras_hooks.patching import standing_in
from keras_gradwatch.tensors.branch import cond
from keras_gradwatch.tensors.processes import (
    Shards,
    everywhere,
    is_alone,
    is_whole,
)

# Lists in the state that Keras hands to a step.
KERAS_GROUPS = 4


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


class StateAccess(Access):
    """Accesses variables between two steps, while Keras holds their values as a state.

    `carried` is the list of the monitor's variables, whose values are the fifth list of
    a state. `state` is a tuple of five lists of arrays, or None if none is attached.
    """

    def __init__(self, model):
        self._model = model
        self.carried = []
        self.state = None
        self._where = {}  # id(variable) -> its place in the state

    def attach(self, state):
        """Reads and writes variables in `state` from now on.

        `state` has Keras's four lists of arrays, or those and the monitor's.
        """
        if len(state) == KERAS_GROUPS:
            state = (*state, [variable.value for variable in self.carried])
        self.state = tuple(list(group) for group in state)

    def carry(self, variables):
        """Notes all places in a state; returns whether `carried` has changed."""
        before, self.carried = self.carried, list(variables)
        self._groups = (*state_variables(self._model()), self.carried)
        self._where = {
            id(v): (g, i)
            for g, group in enumerate(self._groups)
            for i, v in enumerate(group)
        }
        return list(map(id, before)) != list(map(id, self.carried))

    def detach(self):
        """Gives up the attached state, and returns Keras's four lists of it."""
        state, self.state = self.state, None
        adopt(self.carried, state[KERAS_GROUPS])
        return state[:KERAS_GROUPS]

    def give_back(self):
        """Assigns the attached state to the variables; errors must not lose it."""
        state, self.state = self.state, None
        if state is None or any(v.is_deleted() for group in state for v in group):
            return  # donated to a step that did not return
        for variables, values in zip(self._groups, state, strict=True):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        mark_synced(self._model())

    def _array(self, variable):
        if self.state is None or id(variable) not in self._where:
            return None
        group, index = self._where[id(variable)]
        return self.state[group][index]

    def _sync(self):
        model = self._model()
        if model is not None and self.state is None:
            model.jax_state_sync()

    def read(self, variable):
        array = self._array(variable)
        if array is not None:
            return np.array(array)
        self._sync_for(variable)
        return super().read(variable)

    def write(self, variable, value):
        value = value.array() if isinstance(value, Shards) else value
        array = self._array(variable)
        if array is None:
            self._sync_for(variable)
            variable.assign(value)
            return
        group, index = self._where[id(variable)]
        self.state[group][index] = _like(value, array)

    def _sync_for(self, variable):
        # Ours hold their values all the time.
        if not any(variable is own for own in self.carried):
            self._sync()

    def is_whole(self, variable):
        return is_whole(self._present(variable))

    def is_ready(self, variable):
        array = self._array(variable)
        # Several processes must read at the same steps.
        return is_alone() and (array is None or _on_cpu(array) or array.is_ready())

    def scope(self):
        if self.state is None:
            self._sync()
            return contextlib.nullcontext()
        return _scope(self._groups, self.state)

    def device_copies(self, variables):
        return [_copy(self._present(variable)) for variable in variables]

    def _present(self, variable):
        """Returns the current array of a variable."""
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
        self._sync()
        return [Shards.of(self._present(variable)) for variable in variables]


def _scope(groups, state):
    """Returns a scope in which lists of variables have the values in `state`."""
    pairs = [
        pair
        for variables, values in zip(groups, state, strict=True)
        for pair in zip(variables, values, strict=True)
    ]
    return keras.StatelessScope(pairs, initialize_variables=False)


def _copy(array):
    """Copies an array on its device; on a CPU with NumPy, which compiles nothing."""
    if is_alone() and _on_cpu(array):
        return np.array(array)
    return jax.numpy.array(array)


def _on_cpu(array):
    return next(iter(array.devices())).platform == "cpu"


def _like(value, array):
    """Returns a value as an array on the devices of `array`."""
    if isinstance(value, jax.Array):
        return value
    value = np.asarray(value, array.dtype)
    if not is_alone():
        return everywhere(value, array.sharding)
    # A compiled step is compiled again for an array that is bound to a device.
    return jax.device_put(value, array.sharding if array.committed else None)


class Scoped(Runner):
    """Handles variables in a step that is a pure function.

    `state` has five lists of arrays: Keras's four, and the values of `carried`.
    """

    state_comes_late = True

    def __init__(self, model, state, carried):
        self._groups = (*state_variables(model), carried)
        self._scope = _scope(self._groups, state)

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
        """Stands in for `optimizer.stateless_apply`, whose original is `apply`.

        `state` and `weights` are arrays; the result is new weights and a new state.
        """
        if all(g is None for g in gradients):
            return apply(state, gradients, weights)  # nothing is trained
        trained, kept = trained_by(optimizer), optimizer.variables

        def apply_here(gradients, variables):
            new = apply(values_of(kept), gradients, values_of(trained))
            _assign([*trained, *kept], [*new[0], *new[1]])

        for pair in zip([*trained, *kept], [*weights, *state], strict=True):
            self._scope.add_update(pair)
        with learning_rate.pinned(optimizer, self._present):
            watched.apply(optimizer, apply_here, gradients, trained)
        present = self._present
        return [present(v) for v in trained], [present(v) for v in kept]

    def _present(self, variable):
        """Returns the current value of a variable, from the scope if it has one."""
        value = self._scope.get_current_value(variable)
        return variable.value if value is None else value

    def seen(self, loss):
        # Without its gradient, the loss belongs to the trace outside of the derivative.
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


class JaxBackend(Backend):
    """JAX, where a step is a pure function from state to state."""

    def check(self, model):
        """Raises in NNX mode."""
        if getattr(keras.config, "is_nnx_enabled", lambda: False)():
            raise ValueError(
                "keras_gradwatch cannot watch models in Keras's NNX mode. Unset "
                "KERAS_NNX_ENABLED, or call `keras.config.disable_nnx()`."
            )

    def access(self, model):
        return StateAccess(model)

    def runner(self, model, state, data):
        carried = model.gradwatch.store.access.carried
        return Scoped(model, state, carried) if len(state) > KERAS_GROUPS else None

    def create_variable(self, name, initial, dtype, model):
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

        return self.on_host(create)

    def write_row(self, ring, index, row):
        start = ops.stack([index, ops.zeros_like(index)])
        ring.assign(ops.slice_update(ops.convert_to_tensor(ring), start, row[None]))

    def on_host(self, function):
        """Calls `function()` in another thread.

        Neither the trace nor Keras's scope of the step reaches it: there, a variable
        has its value, and is not a part of the computation.
        """
        distribution = keras.distribution.distribution()

        def run():
            # Nor does the distribution.
            with distribution.scope() if distribution else contextlib.nullcontext():
                return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(run).result()

    def differentiation(self):
        return standing_in(jax, value_and_grad=_value_and_grad, grad=_grad)

    def first_batch(self, model, iterator):
        if not is_alone():
            return None, iterator
        rest = iter(iterator)
        batch = next(rest, None)
        return batch, rest if batch is None else itertools.chain([batch], rest)


BACKEND = JaxBackend()
