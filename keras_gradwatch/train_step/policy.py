"""Applying a policy to the gradients of an application."""

import numpy as np
from keras import ops

from keras_gradwatch.policies.base import Measurement
from keras_gradwatch.statistics import measure
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.train_step.application import (
    MISSING,
    size,
)


def decide_policy(state, application, measured, decision):
    """Returns whether the policy acts, a scalar bool, and `transform` for `changed`."""
    plan, partial = state.plan, application.window.partial
    usable = (state.control["clipping"] > 0) & measured.gradients_finite
    if partial is not None:
        usable = usable & ~partial
    trained = application.trained
    known = Measurement(
        step=state.number,
        loss=measured.loss,
        global_norm=measured.norm,
        statistics=_all_columns(plan.gradient_statistics, measured.matrix),
        finite=usable,
        sizes=ops.convert_to_tensor([size(v.shape) for v in trained], "float32"),
        kernels=ops.convert_to_tensor([len(v.shape) >= 2 for v in trained]),
        names=[getattr(v, "path", v.name) for v in trained],
        gradients=application.shown,
        weights=trained,
    )
    memory = Memory(state.monitor, plan.policy, application)
    before = memory.read()
    change, limits, after = plan.policy.decide(known, before, state.policy_settings)
    memory.write({n: ops.where(usable, after[n], v) for n, v in before.items()})

    def transform():
        gradients = plan.policy.transform(application.shown, limits)
        return gradients, ops.sqrt(ops.sum(measure.squares(gradients)))

    return usable & change & ~decision.skip, transform


def _all_columns(names, matrix):
    """Returns the matrix [P, 8] with columns `NAMES`, NaN where not measured."""
    missing = ops.zeros_like(matrix[:, 0]) + MISSING
    columns = [matrix[:, names.index(n)] if n in names else missing for n in NAMES]
    return ops.stack(columns, axis=1)


class Memory:
    """A policy's state for one application, in variables of the monitor."""

    def __init__(self, monitor, policy, application):
        names = monitor.names_of(application.trained)
        count = len(monitor.layout.variables)
        every = [monitor.layout.variables.index(name) for name in names]
        # None where the application has all variables.
        self._places = None if every == list(range(count)) else every
        self._variables, self._whole = {}, {}
        for name, (value, per_variable) in policy_state(policy, count).items():
            variable = monitor.variable(f"policy{application.index}/{name}", value)
            self._variables[name] = variable, per_variable

    def read(self):
        """Returns the state of the policy, a dict of tensors."""
        state = {}
        for name, (variable, per_variable) in self._variables.items():
            self._whole[name] = ops.copy(variable)
            some = per_variable and self._places is not None
            state[name] = (
                ops.take(self._whole[name], self._places, axis=0)
                if some
                else self._whole[name]
            )
        return state

    def write(self, state):
        """Assigns the new state."""
        for name, (variable, per_variable) in self._variables.items():
            value = ops.cast(state[name], "float32")
            if per_variable and self._places is not None:
                index = ops.convert_to_tensor([[p] for p in self._places], "int32")
                value = ops.scatter_update(self._whole[name], index, value)
            variable.assign(value)


def policy_state(policy, count):
    """Returns the initial state: name to `(array, has one row per variable)`."""
    one, more = policy.initial_state(count), policy.initial_state(count + 1)
    return {n: (one[n], np.shape(one[n]) != np.shape(more[n])) for n in one}
