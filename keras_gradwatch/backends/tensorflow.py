"""The primitives on TensorFlow."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from keras_gradwatch.backends.access import Access
from keras_gradwatch.backends.graph_batch import GraphBatches
from keras_gradwatch.backends.patching import standing_in
from keras_gradwatch.backends.replicas import Replicas
from keras_gradwatch.keras_hooks.build import build_ahead, unlifted
from keras_gradwatch.keras_hooks.interception import active

__all__ = [
    "GraphAccess",
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

# Steps of these run in other ways than those of `MirroredStrategy`.
UNSUPPORTED = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


def on_host(function):
    """Calls `function()` now, outside of the graph of the step that is traced."""
    with tf.init_scope():
        return function()


def create_variable(name, initial, dtype, model):
    """Makes a variable that every replica holds equal.

    Args:
        name: Its name.
        initial: NumPy array, the first value.
        dtype: Of the variable.
        model: The watched model, under whose strategy it is made.

    Returns:
        A `keras.Variable` that belongs to no layer.
    """

    def create():
        strategy = model.distribute_strategy
        with tf.init_scope(), strategy.scope(), unlifted():
            return keras.Variable(
                np.asarray(initial),
                dtype=dtype,
                trainable=False,
                name=name,
                aggregation="only_first_replica",
            )

    if tf.distribute.in_cross_replica_context() or not tf.distribute.has_strategy():
        return create()
    # Where a replica traces its step, no strategy's scope can be entered; its context
    # is that of the thread.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(create).result()


def write_row(ring, index, row):
    """Writes `row` into row `index` of the variable `ring`, in place."""
    ring.value.scatter_update(tf.IndexedSlices(row[None], index[None]))


def check(model):
    """Nothing: every model that Keras compiles can be watched."""


def check_strategy(model):
    """Raises where this model was made under a strategy that is not supported.

    Raises:
        ValueError: Under a strategy for several machines, for TPUs, or for parameter
            servers.
    """
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "keras_gradwatch cannot watch a model under MultiWorkerMirroredStrategy: "
            "Keras 3 itself cannot fit one (keras-team/keras issue 20585). Use "
            "MirroredStrategy on one machine."
        )
    if isinstance(strategy, UNSUPPORTED):
        raise ValueError(
            "keras_gradwatch cannot watch a model under "
            f"{type(strategy).__name__}. It supports models on one device and under "
            "MirroredStrategy."
        )


def differentiation():
    """Context that records what the traced step differentiates."""
    return standing_in(tf.GradientTape, gradient=_gradient)


_own_gradient = tf.GradientTape.gradient


def _gradient(tape, target, sources, *args, **kwargs):
    gradients = _own_gradient(tape, target, sources, *args, **kwargs)
    watched = active()
    if watched is not None:
        every = tf.nest.flatten(sources)
        if any(isinstance(s, keras.Variable | tf.Variable) for s in every):
            found = tf.nest.flatten(gradients)
            watched.differentiated(tf.nest.flatten(target), found)
    return gradients


def prepare(model, step, *arguments):
    """Creates all variables before the trace, so that the step is traced once."""
    build_ahead(model, step, *arguments)


def build_for(model, iterator):
    """Builds a model for the batches of an iterator, before its first step.

    What cannot be built that way (a custom step with data of its own) is built by its
    first step.
    """
    spec = getattr(iterator, "element_spec", None)
    if spec is not None:
        leaves = tf.nest.flatten(spec)
        if all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
            tensors = [keras.KerasTensor(s.shape, s.dtype.name) for s in leaves]
            build_ahead(
                model, model.train_step, tf.nest.pack_sequence_as(spec, tensors)
            )


def first_batch(model, iterator):
    """The batch that comes next, and an iterator that gives it.

    Args:
        model: The watched model.
        iterator: What Keras hands to the train function.

    Returns:
        `(batch, iterator)`; the batch is None where it cannot be read.
    """
    plain = isinstance(iterator, tf.data.Iterator)
    # An execution of several steps takes as many batches from the iterator.
    several = int(getattr(model, "steps_per_execution", 1) or 1) > 1
    replicas = model.distribute_strategy.num_replicas_in_sync
    if not plain or several or replicas > 1:
        return None, iterator
    spec = iterator.element_spec
    if not all(isinstance(s, tf.TensorSpec) for s in tf.nest.flatten(spec)):
        return None, iterator
    batch = next(iterator)
    # Of the same spec: the step is traced for it, and not again for the next batch.
    variant = tf.data.experimental.to_variant(tf.data.Dataset.from_tensors(batch))
    return batch, iter(tf.data.experimental.from_variant(variant, spec))


def make_runner(model, data):
    """The `Runner` of one step; to be called inside the step."""
    del data
    return Replicas(bool(getattr(model, "jit_compile", False)))


def make_batches(monitor):
    """The object that keeps the batch in which an incident begins."""
    return GraphBatches(monitor)


def release(model):
    """Removes what stays on a model between steps: nothing."""


class GraphAccess(Access):
    """Variables between two steps."""

    def read(self, variable):
        return np.array(_read(variable))

    def device_copies(self, variables):
        return [_read(variable) for variable in variables]

    def update_norms(self, old, variables):
        sums = []
        for before, variable in zip(old, variables, strict=True):
            before = tf.cast(before, tf.float32)
            moved = tf.raw_ops.Sub(x=tf.cast(_read(variable), tf.float32), y=before)
            sums += [tf.raw_ops.L2Loss(t=before), tf.raw_ops.L2Loss(t=moved)]
        with np.errstate(over="ignore"):
            norms = np.sqrt(2 * tf.stack(sums).numpy())
        return norms[::2], norms[1::2]


def _read(variable):
    """The value of a variable, in a tenth of the time that `read_value` takes."""
    value = variable.value
    if isinstance(value, tf.distribute.DistributedValues):
        return value.read_value()
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)


def make_access(model):
    """The `Access` to the variables of a model."""
    del model
    return GraphAccess()
