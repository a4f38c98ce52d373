"""The seam on PyTorch: the model's own step, with its `apply` intercepted."""

import contextlib

import keras
import numpy as np
import torch

from keras_gradwatch.backends.branch import known
from keras_gradwatch.backends.common import (
    check,
    check_strategy,
    cut_rates,
    harmed,
    make_train_function,
    release,
    sync,
    updates,
)
from keras_gradwatch.backends.constants import Constants
from keras_gradwatch.backends.runner import Runner
from keras_gradwatch.keras_hooks.interception import active
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


def on_host(function):
    """Calls `function()`; a step that is not traced is on the host all the time."""
    return function()


def create_variable(name, initial, dtype, model):
    """Makes a variable on the device in use.

    Args:
        name: Its name.
        initial: NumPy array, the first value.
        dtype: Of the variable.
        model: The watched model.

    Returns:
        A `keras.Variable` that belongs to no layer.
    """
    del model
    # A tensor of its own: it is written to, and `Constants` would share it.
    initial = torch.tensor(np.asarray(initial))
    return keras.Variable(initial, dtype=dtype, trainable=False, name=name)


def write_row(ring, index, row):
    """Writes `row` into row `index` of the variable `ring`, in place."""
    ring.value.index_copy_(0, index[None].long(), row[None])


@torch.compiler.disable(recursive=False)
def run_step(model, monitor, step, data):
    """Runs the model's own training step with its gradients captured.

    Where `torch.compile` compiles the step, it compiles the model's own one. What is
    done here, the loss and the update run between its parts, as `backward` does.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        step: The model's own bound `train_step`.
        data: The batch.

    Returns:
        The step's own logs.
    """
    if active() is not None:  # a step that calls another watched step
        return step(data)
    watched = _begin(model, monitor, step)
    return _finish(watched, step, watched.run(step, data), data)


@torch.compiler.disable
def _begin(model, monitor, step):
    return Watched(model, monitor, Eager(model), step)


@torch.compiler.disable
def _finish(watched, step, logs, data):
    return watched.finish(step, logs, data)


class Eager(Runner):
    """Branches of a step that runs one operation after the other.

    Where the host's memory holds all tensors, it decides. On an accelerator nothing
    waits for a decision: an update is made, and taken back on the device where it was
    to be left out.

    Args:
        model: The watched model.
    """

    def __init__(self, model):
        weights = model.trainable_variables[:1]
        self._constants = None
        if not all(known(v.value) for v in weights):
            self._constants = Constants()

    def scope(self):
        stack = contextlib.ExitStack()
        stack.enter_context(torch.no_grad())
        if self._constants is not None:
            stack.enter_context(self._constants)
        return stack

    def own(self, function):
        if self._constants is None:
            return function

        def outside(*arguments):
            self._constants.paused = True
            try:
                return function(*arguments)
            finally:
                self._constants.paused = False

        return outside

    def seen(self, loss):
        return loss.detach().clone()  # a loss scale is a variable, and moves on

    def copies(self, variables, wanted=None):
        values = [v.value.detach() for v in variables]
        if wanted is not None and known(wanted) and not wanted:
            return values  # they are not looked at
        return [value.clone() for value in values]

    def run_if(self, predicate, function, arguments, written):
        if known(predicate):
            if predicate:
                function(arguments)
            return
        before = self.copies(written)
        function(arguments)
        self.restore(~predicate, written, before)

    @property
    def branches(self):
        return self._constants is None

    def either(self, predicate, usual, seldom):
        if not predicate:
            return seldom()
        usual()
        return [torch.tensor(False), torch.tensor(False)]

    def restore(self, predicate, variables, values):
        if known(predicate):
            if predicate:
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
            return
        for variable, value in zip(variables, values, strict=True):
            variable.assign(torch.where(predicate, value, variable.value))
