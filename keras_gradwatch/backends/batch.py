"""The batch in which an incident begins, kept on the device."""

import math

import keras
import numpy as np
from keras import ops

from keras_gradwatch.backends.reading import read
from keras_gradwatch.controller.responses import LONG_AGO
from keras_gradwatch.records.incidents import QUIET
from keras_gradwatch.records.names import unique

# Shapes of batches for which there are variables, at most.
MOST_SHAPES = 8


class BatchKeeper:
    """Keeps the batch of the step in which an incident begins, until it is read.

    The step assigns it to variables, in a branch that is taken only then; there is a
    set of variables for each shape of batch. Of two incidents between two drains of the
    ring, the later one's batch is kept.

    Not kept is a batch that holds something else than dense arrays of numbers, one over
    the limit, one of a ninth shape, and on JAX one of another shape than the first (the
    last of an epoch, where it is smaller): a compiled step has the variables that it
    began with.

    Args:
        monitor: The `GradientMonitor`.

    Attributes:
        reason: Why no batch is kept by the step as it was last traced, in words; None
            where batches are kept.
    """

    def __init__(self, monitor):
        self.reason = None
        self._monitor = monitor
        # What each trace writes to: what tells it apart -> (names, variables), the
        # step's last. Of all traces, since any of them may run again.
        self._kept = {}

    def trace(self, model, runner, any_event, data):
        """Adds to the step what keeps its batch; called when the step is decided.

        Args:
            model: The watched model.
            runner: The `Runner` of the step.
            any_event: Scalar bool, whether a detector has tripped in this step.
            data: The batch: tensors in tuples, lists and dicts.
        """
        items = flat(data)
        self.reason = self._unsupported(model, items)
        if self.reason is not None:
            return
        names = unique(name for name, _ in items)
        tensors = [ops.convert_to_tensor(t) for _, t in items]
        monitor = self._monitor
        # The step has been counted by now.
        number = ops.convert_to_tensor(monitor.variable("step", 0, "int32")) - 1
        limit = monitor.knobs["batch_limit"]  # 0 outside of `fit`
        last = monitor.variable("batch/last", LONG_AGO, "int32")
        size = monitor.variable("batch/size", 0.0)
        before = ops.convert_to_tensor(last)
        begins = any_event & (number - before > QUIET)
        total = sum(_bytes(t) for t in tensors)
        fits = begins & (total <= limit)
        self._keep(runner, names, tensors, number, fits)
        size.assign(ops.where(begins, total, ops.convert_to_tensor(size)))
        last.assign(ops.where(any_event, number, before))

    def take(self, step):
        """The batch of a step, which is then forgotten.

        Args:
            step: The step in which an incident began.

        Returns:
            `(batch, None)`, a dict of name to NumPy array, or `(None, why not)`.
        """
        for names, (*kept, kept_step) in self._kept.values():
            if int(read(kept_step)) == step:
                batch = {n: read(v) for n, v in zip(names, kept, strict=True)}
                self._forget(kept)
                kept_step.assign(-1)
                return batch, None
        if self.reason is not None:
            return None, self.reason
        monitor = self._monitor
        limit = float(monitor.plan.save_batch)
        size = float(read(monitor.variable("batch/size", 0.0)))
        if size > limit:
            return None, f"it has {size:.0f} bytes, and `save_batch` is {limit:.0f}"
        return None, "a later one took its place, or it has another shape than others"

    def _unsupported(self, model, items):
        """Why batches of this kind cannot be kept, in words, or None."""
        del model
        for name, item in items:
            if not ops.is_tensor(item) and not isinstance(item, np.ndarray):
                kind = type(item).__name__
                return f"batches that hold a {kind} (at `{name}`) are not kept"
        return None

    def _keep(self, runner, names, tensors, number, predicate):
        """Assigns the tensors, and the number of the step, where `predicate` holds."""
        kinds = [keras.backend.standardize_dtype(t.dtype) for t in tensors]
        shapes = [tuple(t.shape) for t in tensors]
        key = (*names, *kinds, *shapes)
        if key not in self._kept:
            each = [np.dtype(kind).itemsize for kind in kinds]
            size = sum(n * math.prod(s) for n, s in zip(each, shapes, strict=True))
            small = size <= self._monitor.plan.save_batch
            room = runner.makes_variables and len(self._kept) < MOST_SHAPES
            if not (small and room):
                return
            place = f"batch/{len(self._kept)}"
            variables = [
                self._monitor.variable(f"{place}/{i}", np.zeros(shape), kind)
                for i, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
            ]
            kept_step = self._monitor.variable(f"{place}/step", -1, "int32")
            self._kept[key] = names, [*variables, kept_step]
        variables = self._kept[key][1]
        runner.replace_if(predicate, variables, lambda: ([*tensors, number], predicate))

    def _forget(self, variables):
        """Frees what can be freed of variables that have been read."""


def flat(data, name=""):
    """A nested batch as a list of pairs of a name (`0`, `1`, `0/image`) and a leaf."""
    if isinstance(data, dict):
        parts = data.items()
    elif isinstance(data, tuple | list):
        parts = enumerate(data)
    else:
        return [] if data is None else [(name or "batch", data)]
    prefix = f"{name}/" if name else ""
    return [item for key, part in parts for item in flat(part, f"{prefix}{key}")]


def _bytes(tensor):
    """Size of a tensor in bytes, a float32 scalar."""
    each = np.dtype(keras.backend.standardize_dtype(tensor.dtype)).itemsize
    return ops.cast(ops.convert_to_tensor(ops.size(tensor)), "float32") * each
