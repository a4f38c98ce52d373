"""The seam on TensorFlow: the model's own step, with its `apply` intercepted."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from keras_gradwatch.capture import rates
from keras_gradwatch.capture.accumulation import applications
from keras_gradwatch.capture.batch import BatchKeeper
from keras_gradwatch.capture.building import build_ahead
from keras_gradwatch.capture.frame import Frame
from keras_gradwatch.capture.interception import active, held_optimizers, intercept
from keras_gradwatch.capture.state import restorable, value_of

# Steps of these run in other ways than those of `MirroredStrategy`.
UNTRIED = (
    tf.distribute.TPUStrategy,
    tf.distribute.experimental.CentralStorageStrategy,
    tf.distribute.experimental.ParameterServerStrategy,
)


def host():
    """Context in which code of a traced step runs at once, outside the graph."""
    return tf.init_scope()


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
        with tf.init_scope(), model.distribute_strategy.scope():
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
    """Raises where this model cannot be watched in the way it is compiled.

    Raises:
        ValueError: Without an optimizer.
    """
    if not held_optimizers(model):
        raise ValueError(
            f"The model {model.name!r} has no optimizer, so it has no gradients to "
            "watch. Call `model.compile(optimizer=...)` before `fit`."
        )


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


def updates(model):
    """How many updates a model's optimizer has made, an int; of several the most.

    Micro-batches of an accumulation window count one each.
    """
    return max(map(applications, held_optimizers(model)), default=0)


def harmed(model):
    """The variables that a bad step may have harmed: weights, state, optimizers'.

    Learning rates are left out, and so are seeds and metrics.

    Returns:
        List of `keras.Variable`, each once.
    """
    optimizers = held_optimizers(model)
    leaves = [leaf for optimizer in optimizers for leaf in rates.leaves(optimizer)]
    left_out = {id(leaf.learning_rate) for leaf in leaves}
    left_out |= {id(v) for metric in model.metrics for v in metric.variables}
    variables = [*model.trainable_variables, *restorable(model)]
    for optimizer in optimizers:
        variables += optimizer.variables
    return [v for v in {id(v): v for v in variables}.values() if id(v) not in left_out]


def cut_rates(model, factor, min_lr):
    """Multiplies the learning rates of a model's optimizers by `factor`, now."""
    rates.cut_now(held_optimizers(model), factor, min_lr)


def release(model):
    """Removes what stays on a model's optimizers between steps."""
    rates.unhook_schedules(held_optimizers(model))


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
    plan = monitor.plan
    if plan.protects:
        build_ahead(model, step, data)
    frame = Frame(model, monitor)
    kept = restorable(model) if plan.protects else []
    before = [tf.identity(value_of(v)) for v in kept]
    with intercept(model, frame):
        logs = step(data)
    # The logs of the stock step are the metrics; one of the user's may have others.
    stock = getattr(step, "__func__", None) is keras.Model.train_step
    seen = None if stock or not plan.protects else model.get_metrics_result()
    frame.finish()
    if plan.save_batch:
        monitor.batch = monitor.batch or BatchKeeper(monitor)
        monitor.batch.trace(model, frame.step, data)
    monitor.traced()
    if plan.protects and frame.step.sites:
        frame.replicas.restore(frame.step.skipped, kept, before)
        frame.restore_sites()
        logs = _logs_again(model, monitor, logs, seen, frame.step.skipped)
    return logs


def _logs_again(model, monitor, logs, seen, skipped):
    """The step's logs as they are without a skipped batch.

    Metrics have been put back. Another number that a step of the user's own returns is,
    where the step is skipped, that of the last step that was not.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        logs: What the step returned.
        seen: The metrics as the step left them, a dict; None where the logs are these.
        skipped: Scalar bool.
    """
    if not isinstance(logs, dict):
        return logs
    fresh = model.get_metrics_result()
    result = dict(logs)
    for key, value in logs.items():
        if not (tf.is_tensor(value) and value.dtype.is_floating):
            continue
        metric = tf.cast(fresh[key], value.dtype) if key in fresh else None
        if seen is None:
            result[key] = tf.where(skipped, metric, value)
        elif value.shape.rank == 0:
            last = monitor.variable(f"log/{key}", float("nan"))
            before = tf.cast(tf.convert_to_tensor(last), value.dtype)
            if metric is not None:
                # A metric has this name, too: is this the metric?
                same = _equal(value, tf.cast(seen[key], value.dtype))
                before = tf.where(same, metric, before)
            result[key] = tf.where(skipped, before, value)
            last.assign(tf.cast(result[key], "float32"))
    return result


def _equal(a, b):
    return tf.equal(a, b) | (tf.math.is_nan(a) & tf.math.is_nan(b))
