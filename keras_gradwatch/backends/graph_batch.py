"""The batch in which an incident begins, kept in a graph (TensorFlow)."""

import tensorflow as tf

from keras_gradwatch.backends.batch import BatchKeeper


class GraphBatchKeeper(BatchKeeper):
    """Keeps a batch in variables that have no shape of their own.

    So a smaller last batch fits, too. Not kept is a batch in a step that XLA compiles
    (its branches know no variable of another shape), and in one that runs under a
    strategy (each replica sees a part).
    """

    def _unsupported(self, model, items):
        if getattr(model, "jit_compile", False):
            return (
                "batches are not kept where XLA compiles the step: compile the model "
                "with `jit_compile=False`"
            )
        if tf.distribute.has_strategy():
            return "batches are not kept under a `tf.distribute` strategy"
        for name, item in items:
            dense = isinstance(item, tf.Tensor)
            if not dense or not (item.dtype.is_bool or _is_number(item.dtype)):
                kind = item.dtype.name if dense else type(item).__name__
                return f"batches that hold a {kind} (at `{name}`) are not kept"
        return None

    def _keep(self, runner, names, tensors, number, predicate):
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
                kept_step = tf.Variable(-1, trainable=False)
            self._kept[key] = names, [*variables, kept_step]
        *kept, kept_step = self._kept[key][1]

        def copy():
            for variable, tensor in zip(kept, tensors, strict=True):
                variable.assign(tensor)
            kept_step.assign(number)
            return 0

        tf.cond(predicate, copy, lambda: 0)

    def _forget(self, variables):
        for variable in variables:
            variable.assign(_nothing(variable.dtype))


def _nothing(dtype):
    return tf.zeros([0], dtype)


def _is_number(dtype):
    return dtype.is_floating or dtype.is_integer or dtype.is_complex
