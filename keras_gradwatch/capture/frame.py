"""What happens at the seam in one step (TensorFlow)."""

import keras
import tensorflow as tf

from keras_gradwatch import statistics
from keras_gradwatch.capture import rates, scaling, sparse
from keras_gradwatch.capture.accumulation import Window
from keras_gradwatch.capture.averages import averages_of
from keras_gradwatch.capture.interception import held_optimizers
from keras_gradwatch.capture.reductions import outlined
from keras_gradwatch.capture.replicas import Replicas
from keras_gradwatch.capture.state import spoiled, value_of
from keras_gradwatch.step import Step

# Optimizers that write the weights anew from their accumulators, the first values
# forgotten: how far a step moves the weights says nothing about its rate.
REWRITING = (keras.optimizers.Ftrl,)


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
        self._spoiled = None
        if any(scaling.dynamic(o) for o in held_optimizers(model)):
            self._spoiled = spoiled(model)  # before the step
        self._hook_schedules()

    # -- called by the stand-ins ---------------------------------------------------

    def scale_loss(self, optimizer, loss):
        """Notes the loss that is differentiated for `optimizer`."""
        if not self._inside:
            self._losses[id(optimizer)] = (loss, scaling.loss_scale(optimizer))

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
        for gradient, variable in zip(local, trained, strict=True):
            if isinstance(gradient, tf.Tensor):
                # TensorFlow does not always know that it has the variable's shape: for
                # one, in a Dense layer after MultiHeadAttention.
                gradient.set_shape(variable.shape)
        window = Window(optimizer, trained)
        if plan.protects and len(window.lengths) > 1:
            raise ValueError(
                "keras_gradwatch protects a MultiOptimizer whose members have the same "
                "`gradient_accumulation_steps`: their windows must end together. "
                f"Received: {sorted(window.lengths)} (1: none)"
            )
        loss, scale = self._losses.get(id(optimizer), (self._loss, None))
        known = loss is not None
        loss = tf.cast(loss, tf.float32) if known else tf.constant(float("nan"))
        *sums, loss, newly_spoiled = self.replicas.sum(
            [*local, loss, self._newly_spoiled()]
        )
        summed = [sparse.unique_rows(g) for g in sums]
        summed = window.average([scaling.unscale(g, scale) for g in summed])
        shown = [
            sparse.rows(g, own, v.shape)
            for g, own, v in zip(summed, local, trained, strict=True)
        ]
        site = self.step.judge(
            [_name(v) for v in variables],
            _spread(shown, places, len(variables)),
            variables,
            loss if known else None,
            scale=scale,
            # What the forward pass did to the model's state is no matter of the scale.
            handled=newly_spoiled < 1 if scaling.dynamic(optimizer) else None,
            partial=window.partial,
        )
        self.rates.add(optimizer)
        if plan.policy is not None:
            local, sums = self._transform(
                site, optimizer, local, sums, summed, shown, window
            )
        old = self._copies(trained)
        if plan.protects:
            self._remember(optimizer, variables)
            if scaling.dynamic(optimizer) and self.replicas.count > 1:
                local = scaling.spoil(local, site.overflow)

            # All of them are arguments: a replica's own, also where a "gradient" is a
            # new value and is not watched.
            handed = _merge(gradients, local, places)
            with self.replicas.known_sums(local, sums):
                self.replicas.run_if(~site.skip, lambda g: apply(g, variables), handed)
        else:
            with self.replicas.known_sums(local, sums):
                apply(gradients, variables)
        self._judge_update(site, optimizer, trained, old, places, window)
        if plan.holds:
            self._hold(site, optimizer, trained, old, summed)

    def _newly_spoiled(self):
        """In how many of the model's variables this step left a non-finite value."""
        if self._spoiled is None:
            return tf.constant(0.0)
        before, now = self._spoiled, spoiled(self.model)
        newly = [now[v] & ~before[v] if v in before else now[v] for v in now]
        return tf.add_n([tf.constant(0.0), *(tf.cast(n, tf.float32) for n in newly)])

    def _transform(self, site, optimizer, local, sums, summed, shown, window):
        """What `apply` is given where the policy changed the gradients.

        Returns:
            `(gradients, their sums over the replicas)`; while nothing is changed, what
            came.
        """
        factor = scaling.loss_scale(optimizer)
        count = self.replicas.count

        def change():
            changed, norm = self.step.transform(site, shown)

            def ready(replicas):
                # `apply` unscales again, and sums over the replicas again.
                return window.hand_over(
                    [
                        sparse.like(new, old, own.dtype, factor, replicas)
                        for new, old, own in zip(changed, summed, local, strict=True)
                    ]
                )

            return [*ready(count), *(ready(1) if count > 1 else []), norm]

        def keep():
            kept = window.dense(local)
            return [*kept, *(sums if count > 1 else []), site.clipped_norm]

        *handed, site.clipped_norm = tf.cond(site.change, change, keep)
        handed, totals = handed[: len(local)], handed[len(local) :]
        return handed, totals or handed

    def _build(self, optimizer, variables):
        """Builds an optimizer that `apply` would build inside a branch.

        In the graph, as `apply` does it: what an optimizer assigns while it is built
        is a part of stock Keras's step.
        """
        if not optimizer.built:
            with keras.name_scope(optimizer.name, caller=optimizer):
                optimizer.build(variables)
            optimizer.built = True
            self._hook_schedules()  # a `MultiOptimizer` may have its members only now

    def _hook_schedules(self):
        plan = self.monitor.plan
        if plan.cuts or plan.holds or plan.rewinds:
            rates.hook_schedules(
                held_optimizers(self.model),
                lambda index: self.monitor.renew(f"rate_scale/{index}", 1.0),
            )

    # -- the weights before and after ----------------------------------------------

    def _copies(self, variables):
        """Copies of the weights in steps that sample them, else empty tensors."""
        if getattr(self.model, "jit_compile", False):
            # XLA knows no branch that returns tensors of another shape.
            return [tf.identity(value_of(v)) for v in variables]

        def copy():
            return [tf.identity(value_of(v)) for v in variables] + [0]

        def nothing():
            return [tf.zeros([0] * len(v.shape), v.dtype) for v in variables] + [0]

        return tf.cond(self.step.update_measured, copy, nothing)[:-1]

    def _judge_update(self, site, optimizer, variables, old, places, window):
        plan = self.monitor.plan

        def measure():
            before = [
                _constrained(tf.reshape(a, v.shape), v)
                for a, v in zip(old, variables, strict=True)
            ]
            return statistics.update_statistics(before, _values(variables))

        def missing():
            return tf.fill([len(variables), 2], float("nan"))

        measurable = self.step.update_measured
        if window.partial is not None:
            measurable = measurable & ~window.partial
        if any(isinstance(leaf, REWRITING) for leaf in rates.leaves(optimizer)):
            measurable = tf.constant(False)
        matrix = tf.cond(measurable, outlined(measure), missing)
        self.step.judge_update(site, _scatter(matrix, places, len(site.names)))
        if plan.skips and any(d.after_update for d in plan.detectors):
            self.replicas.restore(site.revert, variables, old)

    def _hold(self, site, optimizer, variables, old, gradients):
        """Cuts an update down to the trust region, where it must be.

        A moving average of the weights is taken along: what was cut off was in it.
        """
        averages = averages_of(optimizer, variables)
        targets = [*variables, *(pair[0] for pair in averages if pair)]

        def inner(moved):
            pairs = zip(gradients, moved, strict=True)
            return tf.add_n([sparse.inner(g, change) for g, change in pairs])

        def limited():
            pairs = zip(old, variables, strict=True)
            before = [tf.reshape(a, v.shape) for a, v in pairs]
            made = _values(variables)
            weights, held = self.step.limit(site, before, made, inner)
            pairs = zip(weights, variables, strict=True)
            weights = [_constrained(tf.cast(w, v.dtype), v) for w, v in pairs]
            corrected = [
                _corrected(pair[0], pair[1], weight - after)
                for pair, weight, after in zip(averages, weights, made, strict=True)
                if pair
            ]
            return [*weights, *corrected], held

        def hold():
            values, held = limited()
            for target, value in zip(targets, values, strict=True):
                target.assign(value)
            return held

        if self.replicas.count == 1:
            held = tf.cond(site.hold, outlined(hold), lambda: False)
        else:
            # A replica must not assign within a branch.
            values, held = tf.cond(
                site.hold, outlined(limited), lambda: (_values(targets), False)
            )
            self.replicas.restore(held, targets, values)
        self.step.note_hold(site, held)

    # -- several sites in one step -------------------------------------------------

    def _remember(self, optimizer, variables):
        everything = [*variables, *optimizer.variables]
        unique = list({id(v): v for v in everything}.values())
        self._before.append((unique, [tf.identity(value_of(v)) for v in unique]))

    def restore_sites(self):
        """Takes back earlier sites' updates where a later site of the step tripped."""
        for index in reversed(range(len(self._before) - 1)):
            later = self.step.skipped & ~self.step.sites[index].skip
            self.replicas.restore(later, *self._before[index])

    def finish(self):
        """Ends the step."""
        self.step.finish(self.rates)


def _values(variables):
    return [tf.convert_to_tensor(value_of(v)) for v in variables]


def _corrected(average, share, change):
    value = tf.convert_to_tensor(value_of(average))
    return value + tf.cast(share, value.dtype) * tf.cast(change, value.dtype)


def _constrained(value, variable):
    """Weights as their constraint has them, if they have one.

    What a constraint does to the first weights, which need not satisfy it, is no
    update: it moves them at a rate of zero, too.
    """
    constraint = getattr(variable, "constraint", None)
    return value if constraint is None else constraint(value)


def _name(variable):
    return getattr(variable, "path", variable.name)


def _spread(items, places, count):
    result = [None] * count
    for place, item in zip(places, items, strict=True):
        result[place] = item
    return result


def _merge(gradients, changed, places):
    result = list(gradients)
    for place, gradient in zip(places, changed, strict=True):
        result[place] = gradient
    return result


def _scatter(matrix, places, count):
    """Rows [P, C] at `places` of [count, C], NaN elsewhere."""
    if len(places) == count:
        return matrix
    missing = tf.fill([count, matrix.shape[1]], float("nan"))
    return tf.tensor_scatter_nd_update(missing, [[p] for p in places], matrix)
