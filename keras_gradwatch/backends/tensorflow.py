"""The primitives on TensorFlow."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from keras_gradwatch.backends.access import Access
from keras_gradwatch.backends.base import Backend
from keras_gradwatch.backends.graph_batch import GraphBatches
from keras_gradwatch.backends.replicas import Replicas
from keras_gradwatch.keras_hooks.build import build_ahead, unlifted
from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.keras_hooks.patching import standing_in

# Steps of these run in other ways than those of `MirroredStrategy`.
UNSUPPORTED = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


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


class GraphAccess(Access):
    """Accesses variables between two steps."""

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
    """Reads a variable in a tenth of the time that `read_value` takes."""
    value = variable.value
    if isinstance(value, tf.distribute.DistributedValues):
        return value.read_value()
    return tf.raw_ops.ReadVariableOp(resource=value.handle, dtype=value.dtype)


class TensorFlowBackend(Backend):
    """TensorFlow, where a step is traced into a graph."""

    def check_strategy(self, model):
        """Raises unless the model is on one device or under `MirroredStrategy`."""
        strategy = model.distribute_strategy
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
            raise ValueError(
                "keras_gradwatch cannot watch a model under "
                "MultiWorkerMirroredStrategy: Keras 3 itself cannot fit one "
                "(keras-team/keras issue 20585). Use MirroredStrategy on one machine."
            )
        if isinstance(strategy, UNSUPPORTED):
            raise ValueError(
                "keras_gradwatch cannot watch a model under "
                f"{type(strategy).__name__}. It supports models on one device and "
                "under MirroredStrategy."
            )

    def batches(self, monitor):
        return GraphBatches(monitor)

    def access(self, model):
        return GraphAccess()

    def runner(self, model, data):
        return Replicas(bool(getattr(model, "jit_compile", False)))

    def create_variable(self, name, initial, dtype, model):
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

        in_replica = not tf.distribute.in_cross_replica_context()
        if not (in_replica and tf.distribute.has_strategy()):
            return create()
        # Where a replica traces its step, no strategy's scope can be entered; its
        # context is that of the thread.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(create).result()

    def write_row(self, ring, index, row):
        ring.value.scatter_update(tf.IndexedSlices(row[None], index[None]))

    def on_host(self, function):
        with tf.init_scope():
            return function()

    def differentiation(self):
        return standing_in(tf.GradientTape, gradient=_gradient)

    def prepare(self, model, step, *arguments):
        build_ahead(model, step, *arguments)

    def build_for(self, model, iterator):
        """Builds a model for the batches of an iterator, before its first step.

        If that fails (a custom step with data of its own), the first step builds it.
        """
        spec = getattr(iterator, "element_spec", None)
        if spec is not None:
            leaves = tf.nest.flatten(spec)
            if all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
                tensors = [keras.KerasTensor(s.shape, s.dtype.name) for s in leaves]
                build_ahead(
                    model, model.train_step, tf.nest.pack_sequence_as(spec, tensors)
                )

    def first_batch(self, model, iterator):
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


BACKEND = TensorFlowBackend()
