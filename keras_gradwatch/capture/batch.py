"""The batch in which an incident begins, kept on the device (TensorFlow)."""

import tensorflow as tf

from keras_gradwatch.incidents import QUIET
from keras_gradwatch.names import unique
from keras_gradwatch.responses import LONG_AGO


class BatchKeeper:
    """Keeps the batch of the step in which an incident begins, until it is read.

    The traced step assigns it to variables, in a branch that is taken only then. They
    have no shape of their own, so that a smaller last batch fits, too. Of two incidents
    between two drains of the ring, the later one's batch is kept.

    Not kept is a batch in a step that XLA compiles (its branches know no variable of
    another shape), in one that runs under a strategy (each replica sees a part), one
    that holds something else than dense tensors of numbers, and one over the limit.

    Args:
        monitor: The `GradientMonitor`.

    Attributes:
        reason: Why no batch is kept by the step as it was last traced, in words; None
            where batches are kept.
    """

    def __init__(self, monitor):
        self.reason = None
        self._monitor = monitor
        # What each trace writes to: (names, dtypes) -> variables, the step's last. Of
        # all traces, since any of them may run again.
        self._kept = {}

    def trace(self, model, step, data):
        """Adds to the step what keeps its batch; called when the step is decided.

        Args:
            model: The watched model.
            step: The `Step`, finished.
            data: The batch: tensors in tuples, lists and dicts.
        """
        items = _flat(data)
        self.reason = _unsupported(model, items)
        if self.reason is not None:
            return
        names, tensors = unique(name for name, _ in items), [t for _, t in items]
        *kept, kept_step = self._variables(names, tensors)
        monitor = self._monitor
        # The step has been counted by now.
        number = step.read(monitor.variable("step", 0, "int32")) - 1
        limit = monitor.variable("batch/limit", 0.0)  # 0 outside of `fit`
        last = monitor.variable("batch/last", LONG_AGO, "int32")
        size = monitor.variable("batch/size", 0.0)
        begins = step.any_event & (number - step.read(last) > QUIET)
        total = tf.add_n(
            [tf.cast(tf.size(t), tf.float32) * t.dtype.size for t in tensors]
        )

        def copy():
            for variable, tensor in zip(kept, tensors, strict=True):
                variable.assign(tensor)
            kept_step.assign(number)
            return 0

        def begin():
            size.assign(total)
            return tf.cond(total <= step.read(limit), copy, lambda: 0)

        tf.cond(begins, begin, lambda: 0)
        last.assign(tf.where(step.any_event, number, step.read(last)))

    def take(self, step):
        """The batch of a step, which is then forgotten.

        Args:
            step: The step in which an incident began.

        Returns:
            `(batch, None)`, a dict of name to NumPy array, or `(None, why not)`.
        """
        for (names, _), (*kept, kept_step) in self._kept.items():
            if int(kept_step) == step:
                batch = {n: v.numpy() for n, v in zip(names, kept, strict=True)}
                for variable in kept:
                    variable.assign(_nothing(variable.dtype))
                kept_step.assign(-1)
                return batch, None
        if self.reason is not None:
            return None, self.reason
        monitor = self._monitor
        limit, size = (
            float(monitor.variable(f"batch/{name}", 0.0).numpy())
            for name in ("limit", "size")
        )
        if size > limit:
            return None, f"it has {size:.0f} bytes, and `save_batch` is {limit:.0f}"
        return None, "a later one took its place before it was read"

    def _variables(self, names, tensors):
        """The variables for tensors of these names and types, and one for the step."""
        key = tuple(names), tuple(t.dtype for t in tensors)
        if key not in self._kept:
            with tf.init_scope():
                variables = [
                    tf.Variable(
                        _nothing(t.dtype),
                        shape=tf.TensorShape(None),
                        validate_shape=False,
                        trainable=False,
                    )
                    for t in tensors
                ]
                self._kept[key] = [*variables, tf.Variable(-1, trainable=False)]
        return self._kept[key]


def _nothing(dtype):
    return tf.zeros([0], dtype)


def _flat(data, name=""):
    """A nested batch as a list of pairs of a name (`0`, `1`, `0/image`) and a leaf."""
    if isinstance(data, dict):
        parts = data.items()
    elif isinstance(data, tuple | list):
        parts = enumerate(data)
    else:
        return [] if data is None else [(name or "batch", data)]
    prefix = f"{name}/" if name else ""
    return [item for key, part in parts for item in _flat(part, f"{prefix}{key}")]


def _unsupported(model, items):
    """Why batches of this kind cannot be kept, in words, or None."""
    if getattr(model, "jit_compile", False):
        return (
            "batches are not kept where XLA compiles the step: compile the model with "
            "`jit_compile=False`"
        )
    if tf.distribute.has_strategy():
        return "batches are not kept under a `tf.distribute` strategy"
    for name, item in items:
        dense = isinstance(item, tf.Tensor)
        if not dense or not (item.dtype.is_bool or _is_number(item.dtype)):
            kind = item.dtype.name if dense else type(item).__name__
            return f"batches that hold a {kind} (at `{name}`) are not kept"
    return None


def _is_number(dtype):
    return dtype.is_floating or dtype.is_integer or dtype.is_complex
