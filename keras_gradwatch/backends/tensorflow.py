"""The seam on TensorFlow: the model's own step, with its `apply` intercepted."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from keras_gradwatch.backends.common import (
    check,
    cut_rates,
    harmed,
    make_train_function,
    release,
    sync,
    updates,
)
from keras_gradwatch.backends.replicas import Replicas
from keras_gradwatch.keras_hooks.build import build_ahead, unlifted
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

# Steps of these run in other ways than those of `MirroredStrategy`.
UNTRIED = (
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
    if isinstance(strategy, UNTRIED):
        raise ValueError(
            "keras_gradwatch watches on one device and under MirroredStrategy; it has "
            "never been tried under others, and protects nothing that it was not tried "
            f"on. Received: a model under {type(strategy).__name__}"
        )


def run_step(model, monitor, step, data):
    """Runs the model's own training step with its gradients captured.

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
    if monitor.plan.protects:
        build_ahead(model, step, data)
    compiled = bool(getattr(model, "jit_compile", False))
    watched = Watched(model, monitor, Replicas(compiled), step)
    return watched.finish(step, watched.run(step, data), data)
