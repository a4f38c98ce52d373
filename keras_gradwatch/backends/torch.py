"""The primitives on PyTorch."""

import contextlib

import keras
import numpy as np
import torch

from keras_gradwatch.backends.access import Access
from keras_gradwatch.backends.batch import RecentBatches
from keras_gradwatch.backends.constants import Constants
from keras_gradwatch.backends.patching import standing_in
from keras_gradwatch.backends.runner import Runner
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.tensors.branch import known, uncompiled

__all__ = [
    "EagerAccess",
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


def check(model):
    """Nothing: every model that Keras compiles can be watched."""


def check_strategy(model):
    """Nothing: there are no strategies."""


def differentiation():
    """Context that records what the running step differentiates."""
    return standing_in(torch.autograd, backward=_backward, grad=_grad)


_own_backward, _own_grad = torch.autograd.backward, torch.autograd.grad


@uncompiled()
def _backward(tensors, *args, **kwargs):
    result = _own_backward(tensors, *args, **kwargs)
    watched = active()
    if watched is not None:
        watched.differentiated(tensors)
    return result


@uncompiled()
def _grad(outputs, *args, **kwargs):
    gradients = _own_grad(outputs, *args, **kwargs)
    watched = active()
    if watched is not None:
        # They may be those of inputs, which no optimizer applies.
        watched.differentiated(outputs, gradients, only_these=True)
    return gradients


def prepare(model, step, *arguments):
    """Does nothing: Keras has already built the model."""


def build_for(model, iterator):
    """Does nothing: Keras has already built the model."""


def first_batch(model, iterator):
    """The batch that comes next, and an iterator that gives it; see TensorFlow's."""
    del model
    return iterator[0] if isinstance(iterator, list) else None, iterator


def make_runner(model, data):
    """The `Runner` of one step."""
    del data
    return Eager(model)


def make_batches(monitor):
    """What keeps the batch in which an incident begins."""
    return RecentBatches(monitor)


def release(model):
    """Removes what stays on a model between steps: nothing."""


class EagerAccess(Access):
    """Variables between two steps."""

    def is_ready(self, variable):
        device = variable.value.device
        return device.type == "cpu" or (
            device.type == "cuda" and torch.cuda.current_stream(device).query()
        )

    def device_copies(self, variables):
        return [variable.value.detach().clone() for variable in variables]

    def put_back(self, variables, copies):
        with torch.no_grad():
            super().put_back(variables, copies)

    def update_norms(self, old, variables):
        norms = []
        with torch.no_grad():
            for before, variable in zip(old, variables, strict=True):
                before, after = before.float(), variable.value.float()
                size = torch.linalg.vector_norm
                norms += [size(before), size(after - before)]
            norms = torch.stack(norms).cpu().numpy()
        return norms[::2], norms[1::2]


def make_access(model):
    """The `Access` to the variables of a model."""
    del model
    return EagerAccess()


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

    def branch(self, predicate, fast, slow):
        return fast() if predicate else slow()

    def restore(self, predicate, variables, values):
        if known(predicate):
            if predicate:
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(value)
            return
        for variable, value in zip(variables, values, strict=True):
            variable.assign(torch.where(predicate, value, variable.value))
