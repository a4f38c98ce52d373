"""The batch in which an incident begins, kept in a graph (TensorFlow)."""

import numpy as np
import tensorflow as tf

from keras_gradwatch.backends.batch import flat, too_large
from keras_gradwatch.records.incidents import QUIET
from keras_gradwatch.records.names import unique

LONG_AGO = -(2**30)


class GraphBatches:
    """Keeps the batch of the step in which an incident begins, until it is read.

    The step assigns the batch to variables, in a branch taken only then. If two
    incidents fall between two reads of the ring buffer, the later batch is kept.
    `reason` explains why the step as last traced keeps no batch: XLA compiles it (its
    branches cannot assign a variable of another shape), it runs under a strategy (each
    replica sees only a part), or the batch has anything but dense tensors of numbers.
    None: batches are kept.
    """

    def __init__(self, monitor):
        self.reason = None
        self._monitor = monitor
        # What each trace writes to: names and types -> (names, variables), the step's
        # last. Of all traces, since any of them may run again.
        self._kept = {}

    def trace(self, model, state, event, data):
        """Adds operations to the step that keep `data` if `event`, a scalar bool."""
        items = flat(data)
        self.reason = _unsupported(model, items)
        if self.reason is not None:
            return
        names = unique(name for name, _ in items)
        tensors = [tf.convert_to_tensor(t) for _, t in items]
        last = self._monitor.variable("batch/last", np.float32(LONG_AGO))
        size = self._monitor.variable("batch/size", np.float32(0))
        number = tf.cast(state.number, tf.float32)
        before = last.value.read_value()
        begins = event & (number - before > QUIET)
        total = sum(tf.cast(tf.size(t), tf.float32) * t.dtype.size for t in tensors)
        limit = state.control["batch_limit"]  # 0 outside of `fit`
        self._keep(names, tensors, state.number, begins & (total <= limit))
        size.assign(tf.where(begins, total, size.value.read_value()))
        last.assign(tf.where(event, number, before))

    def take(self, step):
        """Returns the batch of a step, and drops it; see `RecentBatches.take`."""
        for names, kept, kept_step in self._kept.values():
            if int(kept_step) == step:
                batch = {n: v.numpy() for n, v in zip(names, kept, strict=True)}
                for variable in kept:
                    variable.assign(tf.zeros([0], variable.dtype))
                kept_step.assign(-1)
                return batch, None
        if self.reason is not None:
            return None, self.reason
        if not self._kept:
            return (
                None,
                "the step was traced before `save_batch` was set; compile again",
            )
        size = self._monitor.store.read("batch/size")
        limit = self._monitor.plan.save_batch
        if size > limit:
            return None, too_large(size, limit)
        return None, "the batch of a later incident replaced it; reduce `update_freq`"

    def forget_events(self):
        """Has the next event begin a new incident, however soon it comes."""
        self._monitor.store.write("batch/last", LONG_AGO)

    def _keep(self, names, tensors, number, predicate):
        """Assigns the tensors and the step number where `predicate` holds."""
        key = tuple(names), tuple(t.dtype for t in tensors)
        if key not in self._kept:
            with tf.init_scope():
                # Without a shape of their own: a smaller last batch fits, too.
                variables = [
                    tf.Variable(
                        tf.zeros([0], t.dtype),
                        shape=tf.TensorShape(None),
                        validate_shape=False,
                        trainable=False,
                    )
                    for t in tensors
                ]
                self._kept[key] = names, variables, tf.Variable(-1, trainable=False)
        _, kept, kept_step = self._kept[key]

        def copy():
            for variable, tensor in zip(kept, tensors, strict=True):
                variable.assign(tensor)
            kept_step.assign(number)
            return 0

        tf.cond(predicate, copy, lambda: 0)


def _unsupported(model, items):
    """Explains why batches of this kind cannot be kept; None if they can."""
    if getattr(model, "jit_compile", False):
        return (
            "batches are not saved when XLA compiles the step: compile the model "
            "with `jit_compile=False`"
        )
    if tf.distribute.has_strategy():
        return "batches are not saved under a `tf.distribute` strategy"
    for name, item in items:
        dense = isinstance(item, tf.Tensor)
        if not dense or not (item.dtype.is_bool or _is_number(item.dtype)):
            kind = item.dtype.name if dense else type(item).__name__
            return f"batches with a {kind} (at `{name}`) are not saved"
    return None


def _is_number(dtype):
    return dtype.is_floating or dtype.is_integer or dtype.is_complex
