"""The primitives on PyTorch."""

import contextlib

import keras
import numpy as np
import torch

from keras_gradwatch.backends.access import Access
from keras_gradwatch.backends.base import Backend
from keras_gradwatch.backends.constants import Constants
from keras_gradwatch.backends.runner import Runner
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.keras_hooks.patching import standing_in
from keras_gradwatch.tensors.branch import known, uncompiled

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


class EagerAccess(Access):
    """Accesses variables between two steps."""

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


class Eager(Runner):
    """Takes the branches of a step that runs eagerly.

    The host decides if it holds all tensors. On an accelerator nothing waits: an update
    is made, then reverted on the device if it was to be skipped.
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
        return loss.detach().clone()  # it may be a loss scale, which changes later

    def copies(self, variables, wanted=None):
        values = [v.value.detach() for v in variables]
        if wanted is not None and known(wanted) and not wanted:
            return values  # the caller ignores them
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


class TorchBackend(Backend):
    """PyTorch, which runs each operation eagerly."""

    def access(self, model):
        return EagerAccess()

    def runner(self, model, data):
        return Eager(model)

    def create_variable(self, name, initial, dtype, model):
        # A tensor of its own: it is written to, and `Constants` would share it.
        initial = torch.tensor(np.asarray(initial))
        return keras.Variable(initial, dtype=dtype, trainable=False, name=name)

    def write_row(self, ring, index, row):
        ring.value.index_copy_(0, index[None].long(), row[None])

    def differentiation(self):
        return standing_in(torch.autograd, backward=_backward, grad=_grad)

    def first_batch(self, model, iterator):
        return iterator[0] if isinstance(iterator, list) else None, iterator


BACKEND = TorchBackend()
