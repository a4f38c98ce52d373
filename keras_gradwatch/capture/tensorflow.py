"""The seam on TensorFlow: the model's own step, with its `apply` intercepted."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from keras_gradwatch import statistics
from keras_gradwatch.capture import rates, sparse
from keras_gradwatch.capture.accumulation import Window
from keras_gradwatch.capture.building import build_ahead
from keras_gradwatch.capture.interception import active, held_optimizers, intercept
from keras_gradwatch.capture.replicas import Replicas
from keras_gradwatch.capture.state import restorable
from keras_gradwatch.step import Step

# Optimizers that write the weights anew from their accumulators, the first values
# forgotten: how far a step moves the weights says nothing about its rate.
REWRITING = (keras.optimizers.Ftrl,)


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
    """Raises where this model cannot be watched in the way it is set up.

    Raises:
        ValueError: Without an optimizer, or under `MultiWorkerMirroredStrategy`.
    """
    if not held_optimizers(model):
        raise ValueError(
            f"The model {model.name!r} has no optimizer, so it has no gradients to "
            "watch. Call `model.compile(optimizer=...)` before `fit`."
        )
    strategy = model.distribute_strategy
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "keras_gradwatch cannot watch a model under MultiWorkerMirroredStrategy: "
            "Keras 3 itself cannot fit one (keras-team/keras issue 20585). Use "
            "MirroredStrategy on one machine."
        )


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
    if plan.cuts:
        rates.hook_schedules(
            held_optimizers(model),
            lambda: create_variable("gradwatch_rate_scale", 1.0, "float32", model),
        )
    frame = Frame(model, monitor)
    kept = restorable(model) if plan.protects else []
    before = [tf.identity(_value(v)) for v in kept]
    with intercept(model, frame):
        logs = step(data)
    frame.finish()
    monitor.traced()
    if plan.protects and frame.step.sites:
        frame.replicas.restore(frame.step.skipped, kept, before)
        frame.restore_sites()
        logs = _metrics_again(model, logs, frame.step.skipped)
    return logs


class Frame:
    """What happens at the seam in one step.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
    """

    def __init__(self, model, monitor):
        self.model = model
        self.monitor = monitor
        self.step = Step(monitor)
        self.replicas = Replicas()
        self.rates = rates.Rates()
        self._losses = {}  # id(optimizer) -> its loss, and what it is scaled by
        self._loss = None  # the last one that `compute_loss` returned
        self._before = []  # per site: variables and their values before it
        self._inside = False

    # -- called by the stand-ins ---------------------------------------------------

    def scale_loss(self, optimizer, loss):
        """Notes the loss that is differentiated for `optimizer`."""
        if not self._inside:
            self._losses[id(optimizer)] = (loss, _loss_scale(optimizer))

    def compute_loss(self, loss):
        """Notes the loss that the model computed."""
        self._loss = loss

    def apply(self, optimizer, apply, gradients, variables=None):
        """Stands in for `optimizer.apply`."""
        gradients = list(gradients)
        if self._inside or all(g is None for g in gradients):
            return apply(gradients, variables)  # nothing to see, or Keras's own error
        if variables is None:
            variables = optimizer._trainable_variables
        variables = list(variables)
        self._build(optimizer, variables)
        self._inside = True
        try:
            self._apply(optimizer, apply, gradients, variables)
        finally:
            self._inside = False
        return None

    # -- one site ------------------------------------------------------------------

    def _apply(self, optimizer, apply, gradients, variables):
        plan = self.monitor.plan
        places = [
            i
            for i, (g, v) in enumerate(zip(gradients, variables, strict=True))
            if g is not None and not getattr(v, "overwrite_with_gradient", False)
        ]
        local = [gradients[i] for i in places]
        trained = [variables[i] for i in places]
        window = Window(optimizer, trained)
        loss, scale = self._losses.get(id(optimizer), (self._loss, None))
        known = loss is not None
        loss = tf.cast(loss, tf.float32) if known else tf.constant(float("nan"))
        *summed, loss = self.replicas.sum([*local, loss])
        summed = [sparse.unique_rows(g) for g in summed]
        summed = window.average([_unscale(g, scale) for g in summed])
        shown = [sparse.rows(g, v.shape) for g, v in zip(summed, trained, strict=True)]
        site = self.step.judge(
            [_name(v) for v in variables],
            _spread(shown, places, len(variables)),
            [tuple(v.shape) for v in variables],
            loss if known else None,
            scaled=self._scales(optimizer),
            partial=window.partial,
        )
        self.rates.add(optimizer)
        if plan.policy is not None:
            local = self._transform(site, optimizer, local, summed, shown, window)
        old = self._copies(trained)
        if plan.protects:
            self._remember(optimizer, variables)
            if _dynamic(optimizer) and self.replicas.count > 1:
                local = _spoil(local, site.overflow)

            def run(arguments):
                apply(_merge(gradients, arguments, places), variables)

            self.replicas.run_if(~site.skip, run, local)
        else:
            apply(gradients, variables)
        self._judge_update(site, optimizer, trained, old, places, window)

    def _scales(self, optimizer):
        """Whether `optimizer` deals with overflows, as far as this step may be one.

        None may where the forward pass has spoiled the model's state: that is no
        matter of the scale.
        """
        if not _dynamic(optimizer):
            return None
        state = [_value(v) for v in getattr(self.model, "non_trainable_variables", [])]
        spoiled = [
            tf.cast(tf.reduce_any(~tf.math.is_finite(v)), tf.float32)
            for v in state
            if v.dtype.is_floating
        ]
        (count,) = self.replicas.sum([tf.add_n([tf.constant(0.0), *spoiled])])
        return tf.equal(count, 0.0)

    def _transform(self, site, optimizer, local, summed, shown, window):
        """The gradients to be applied: changed by the policy, or the local ones."""
        factor = _loss_scale(optimizer)
        count = self.replicas.count

        def change():
            changed, norm = self.step.transform(site, shown)
            # `apply` unscales again, and sums over the replicas again.
            handed = [
                sparse.like(new, old, own.dtype, factor, count)
                for new, old, own in zip(changed, summed, local, strict=True)
            ]
            return [*window.hand_over(handed), norm]

        def keep():
            return [*local, site.clipped_norm]

        *handed, site.clipped_norm = tf.cond(site.change, change, keep)
        return handed

    def _build(self, optimizer, variables):
        """Builds an optimizer that `apply` would build inside a branch.

        In the graph, as `apply` does it: what an optimizer assigns while it is built
        is a part of stock Keras's step.
        """
        if not optimizer.built:
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(variables)
            optimizer.built = True

    # -- the weights before and after ----------------------------------------------

    def _copies(self, variables):
        """Copies of the weights in steps that sample them, else empty tensors."""
        if getattr(self.model, "jit_compile", False):
            # XLA knows no branch that returns tensors of another shape.
            return [tf.identity(_value(v)) for v in variables]

        def copy():
            return [tf.identity(_value(v)) for v in variables] + [0]

        def nothing():
            return [tf.zeros([0] * len(v.shape), v.dtype) for v in variables] + [0]

        return tf.cond(self.step.update_measured, copy, nothing)[:-1]

    def _judge_update(self, site, optimizer, variables, old, places, window):
        plan = self.monitor.plan

        def measure():
            before = [
                tf.reshape(a, v.shape) for a, v in zip(old, variables, strict=True)
            ]
            now = [tf.convert_to_tensor(_value(v)) for v in variables]
            return statistics.update_statistics(before, now)

        def missing():
            return tf.fill([len(variables), 2], float("nan"))

        measurable = self.step.update_measured
        if window.partial is not None:
            measurable = measurable & ~window.partial
        if any(isinstance(leaf, REWRITING) for leaf in rates.leaves(optimizer)):
            measurable = tf.constant(False)
        matrix = tf.cond(measurable, measure, missing)
        self.step.judge_update(site, _scatter(matrix, places, len(site.names)))
        if plan.skips and any(d.after_update for d in plan.detectors):
            self.replicas.restore(site.revert, variables, old)

    # -- several sites in one step -------------------------------------------------

    def _remember(self, optimizer, variables):
        everything = [*variables, *optimizer.variables]
        unique = list({id(v): v for v in everything}.values())
        self._before.append((unique, [tf.identity(_value(v)) for v in unique]))

    def restore_sites(self):
        """Takes back earlier sites' updates where a later site of the step tripped."""
        for index in reversed(range(len(self._before) - 1)):
            later = self.step.skipped & ~self.step.sites[index].skip
            self.replicas.restore(later, *self._before[index])

    def finish(self):
        """Ends the step."""
        self.step.finish(self.rates)


def _value(variable):
    return variable.value if isinstance(variable, keras.Variable) else variable


def _name(variable):
    return getattr(variable, "path", variable.name)


def _dynamic(optimizer):
    return isinstance(optimizer, keras.optimizers.LossScaleOptimizer)


def _loss_scale(optimizer):
    """What `apply` divides gradients by: a float32 scalar, or None."""
    if _dynamic(optimizer):
        scale = optimizer.dynamic_scale if optimizer.built else optimizer.initial_scale
        return tf.cast(scale, tf.float32)
    if optimizer.loss_scale_factor is not None:
        return tf.constant(float(optimizer.loss_scale_factor))
    return None


def _unscale(gradient, scale):
    if scale is None:
        return gradient
    return sparse.map_values(lambda g: tf.cast(g, tf.float32) / scale, gradient)


def _spoil(gradients, overflow):
    """Infinite gradients where a loss scale overflowed on any replica.

    `LossScaleOptimizer` asks the first replica only whether its gradients are finite.
    """
    poison = tf.where(overflow, float("inf"), 1.0)

    def spoil(values):
        spoiled = tf.fill(tf.shape(values), tf.cast(poison, values.dtype))
        return tf.where(overflow, spoiled, values)

    return [sparse.map_values(spoil, g) for g in gradients]


def _spread(items, places, count):
    result = [None] * count
    for place, item in zip(places, items, strict=True):
        result[place] = item
    return result


def _merge(gradients, arguments, places):
    result = list(gradients)
    for place, gradient in zip(places, arguments, strict=True):
        result[place] = gradient
    return result


def _scatter(matrix, places, count):
    """Rows [P, C] at `places` of [count, C], NaN elsewhere."""
    if len(places) == count:
        return matrix
    missing = tf.fill([count, matrix.shape[1]], float("nan"))
    return tf.tensor_scatter_nd_update(missing, [[p] for p in places], matrix)


def _metrics_again(model, logs, skipped):
    """The step's logs, with the metrics as they are without a skipped batch."""
    if not isinstance(logs, dict):
        return logs
    fresh = model.get_metrics_result()
    return {
        key: tf.where(skipped, tf.cast(fresh[key], value.dtype), value)
        if key in fresh and tf.is_tensor(value)
        else value
        for key, value in logs.items()
    }
