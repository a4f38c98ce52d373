"""What happens at the seam in one step."""

from typing import NamedTuple

import keras
from keras import ops

from keras_gradwatch.backends import sparse
from keras_gradwatch.backends.branch import cond, outlined
from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks import learning_rate as rates
from keras_gradwatch.keras_hooks import loss_scale as scaling
from keras_gradwatch.keras_hooks.accumulation import Window
from keras_gradwatch.keras_hooks.interception import held_optimizers
from keras_gradwatch.keras_hooks.model_state import spoiled
from keras_gradwatch.keras_hooks.moving_average import averages_of
from keras_gradwatch.train_step import statistics
from keras_gradwatch.train_step.quiet import Quiet, possible
from keras_gradwatch.train_step.site import MISSING, any_of, expand
from keras_gradwatch.train_step.step import Step

# Optimizers that write the weights anew from their accumulators, the first values
# forgotten: how far a step moves the weights says nothing about its rate.
REWRITING = (keras.optimizers.Ftrl,)


class Outcome(NamedTuple):
    """What became of a step.

    Attributes:
        applied: Whether an optimizer was applied at all, a bool.
        skipped: Scalar bool, whether the batch is to leave no trace in the state.
        any_event: Scalar bool, whether a detector tripped.
    """

    applied: bool
    skipped: object
    any_event: object


class Frame:
    """What happens at the seam in one step.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        runner: `Runner` of the backend.
        alone: Whether one optimizer is applied once in this step, and no more.

    Attributes:
        outcome: `Outcome` of the step, once that is known.
    """

    def __init__(self, model, monitor, runner, alone=False):
        self.model = model
        self.monitor = monitor
        self.runner = runner
        self.outcome = None  # `Outcome`, once the step is recorded
        self._alone = alone
        self._begin()
        self._losses = {}  # id(optimizer) -> its loss, and what it is scaled by
        self._loss = None  # the last one that `compute_loss` returned
        self._before = []  # per site: variables and their values before it
        self._inside = False
        self._spoiled = None
        if any(scaling.dynamic(o) for o in held_optimizers(model)):
            self._spoiled = spoiled(model)  # before the step
        self._hook_schedules()

    def _begin(self):
        self._step, self._rates = None, rates.Rates()

    @property
    def step(self):
        """The `Step`, begun where it is first asked for."""
        if self._step is None:
            self._step = Step(self.monitor, self._rates.current())
        return self._step

    # -- called by the stand-ins ---------------------------------------------------

    def scale_loss(self, optimizer, loss):
        """Notes the loss that is differentiated for `optimizer`."""
        if not self._inside:
            scale = scaling.loss_scale(optimizer)
            seen = self.runner.seen
            self._losses[id(optimizer)] = (
                seen(loss),
                None if scale is None else seen(scale),
            )

    def compute_loss(self, loss):
        """Notes the loss that the model computed."""
        self._loss = self.runner.seen(loss)

    def apply(self, optimizer, apply, gradients, variables=None):
        """Stands in for `optimizer.apply`."""
        gradients = list(gradients)
        if self._inside:
            return apply(gradients, variables)
        if all(g is None for g in gradients):
            with self.runner.scope():  # nothing to see, or Keras's own error
                return self.runner.own(apply)(gradients, variables)
        if variables is None:
            variables = optimizer._trainable_variables
        variables, apply = list(variables), self.runner.own(apply)
        self._inside = True
        try:
            with self.runner.scope():
                self._build(optimizer, variables)
                self._apply(optimizer, apply, gradients, variables)
        finally:
            self._inside = False
        return None

    # -- one site ------------------------------------------------------------------

    def _apply(self, optimizer, apply, gradients, variables):
        """Takes the short way or the long one."""
        loss = self._simple_loss(optimizer)
        if loss is None or not possible(self.monitor.plan):
            self._long_way(optimizer, apply, gradients, variables)
            return
        self.monitor.build([_name(v) for v in variables])
        shown, places = self._watched(gradients, variables)
        shown = [sparse.rows(sparse.unique_rows(g), g, v.shape) for g, v in shown]
        quiet = Quiet(
            self.monitor,
            _spread(shown, places, len(variables)),
            variables,
            ops.cast(loss, "float32"),
            rates.of(optimizer),
        )

        update = self.runner.once(lambda: apply(gradients, variables))

        def long_way(update, old=None):
            self._begin()
            self._long_way(optimizer, lambda *_: update(), gradients, variables, old)
            outcome = self._recorded()
            quiet.finish(self.step)
            self._begin()
            return [outcome.skipped, outcome.any_event]

        if self.monitor.plan.judges_always and not _rewrites(optimizer):
            trained = [variables[place] for place in places]
            found = self._judged_way(quiet, optimizer, update, long_way, trained)
        else:
            found = self._short_way(quiet, update, long_way)
        self.outcome = Outcome(True, *found)

    def _short_way(self, quiet, update, long_way):
        """The update, and its row, where the step is quiet; else the long way."""

        def short_way():
            update()
            quiet.record()

        def seldom():
            after_all = quiet.holds_after_all()
            return self.runner.either(after_all, short_way, lambda: long_way(update))

        return self.runner.either(quiet.holds, short_way, seldom)

    def _judged_way(self, quiet, optimizer, update, long_way, trained):
        """The same, where every update is judged.

        That is done when it has been made. Where it shows something, the long way goes
        on from there.
        """
        runner = self.runner
        old = runner.copies(trained)
        no = ops.convert_to_tensor(False, "bool")

        def redraw():
            return [~quiet.holds_after_all(), no]

        crossed, _ = runner.either(quiet.holds, lambda: None, redraw)
        written = _unique([*trained, *optimizer.variables])

        def update_if(predicate):
            runner.run_if(predicate, lambda _: update(), [], written)

        update_if(~crossed)
        matrix = _update_statistics(old, trained)
        sound = ~crossed & quiet.passes(matrix)

        def go_on():
            quiet.settle()
            return long_way(lambda: update_if(crossed), old)

        return runner.either(sound, lambda: quiet.record(matrix), go_on)

    def _simple_loss(self, optimizer):
        """The loss of a step of the simple kind, which may go the short way, or None.

        It applies one optimizer once, on one device, the gradients are what they seem
        (not scaled, no part of a window), and the loss is known.
        """
        loss, scale = self._losses.get(id(optimizer), (self._loss, None))
        leaves = rates.leaves(optimizer)
        accumulates = any(leaf.gradient_accumulation_steps for leaf in leaves)
        simple = self._alone and self.runner.branches
        return loss if simple and scale is None and not accumulates else None

    def _watched(self, gradients, variables):
        """Pairs of a gradient and its variable that are looked at, and their places."""
        places = [
            i
            for i, (g, v) in enumerate(zip(gradients, variables, strict=True))
            if g is not None and not getattr(v, "overwrite_with_gradient", False)
        ]
        pairs = [(gradients[i], variables[i]) for i in places]
        for gradient, variable in pairs:
            if hasattr(gradient, "set_shape"):
                # TensorFlow does not always know that it has the variable's shape: for
                # one, in a Dense layer after MultiHeadAttention.
                gradient.set_shape(variable.shape)
        return pairs, places

    def _long_way(self, optimizer, apply, gradients, variables, old=None):
        """Looks at everything.

        Args:
            optimizer: The optimizer.
            apply: Its `apply`; it may have been called already.
            gradients: List of V gradients.
            variables: List of the V variables.
            old: The watched variables' values before the update; None: as they are.
        """
        plan = self.monitor.plan
        pairs, places = self._watched(gradients, variables)
        local = [gradient for gradient, _ in pairs]
        trained = [variable for _, variable in pairs]
        window = Window(optimizer, trained)
        if plan.protects and len(window.lengths) > 1:
            raise ValueError(
                "keras_gradwatch protects a MultiOptimizer whose members have the same "
                "`gradient_accumulation_steps`: their windows must end together. "
                f"Received: {sorted(window.lengths)} (1: none)"
            )
        loss, scale = self._losses.get(id(optimizer), (self._loss, None))
        loss = self.runner.reachable(loss, local[0])
        if scale is not None:
            scale = self.runner.reachable(scale, local[0])
            scale = scaling.loss_scale(optimizer) if scale is None else scale
        known = loss is not None
        loss = ops.cast(
            loss if known else ops.convert_to_tensor(MISSING, "float32"), "float32"
        )
        *sums, loss, newly_spoiled = self.runner.sum(
            [*local, loss, self._newly_spoiled()]
        )
        summed = [sparse.unique_rows(g) for g in sums]
        summed = window.average([scaling.unscale(g, scale) for g in summed])
        shown = [
            sparse.rows(g, own, v.shape)
            for g, own, v in zip(summed, local, trained, strict=True)
        ]
        self._rates.add(optimizer)
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
        if plan.protects and not self._alone:
            self._remember(optimizer, variables)
        if plan.policy is not None:
            local, sums = self._transform(
                site, optimizer, local, sums, summed, shown, window
            )
        if old is None:
            old = self.runner.copies(trained, self.step.update_measured)
        if plan.protects:
            if scaling.dynamic(optimizer) and self.runner.count > 1:
                local = scaling.spoil(local, site.overflow)

            # All of them are arguments: a replica's own, also where a "gradient" is a
            # new value and is not watched.
            handed = _merge(gradients, local, places)
            written = _unique([*variables, *optimizer.variables])
            with self.runner.known_sums(local, sums):
                self.runner.run_if(
                    ~site.skip, lambda g: apply(g, variables), handed, written
                )
        else:
            with self.runner.known_sums(local, sums):
                apply(gradients, variables)
        self._judge_update(site, optimizer, trained, old, places, window)
        if plan.holds:
            self._hold(site, optimizer, trained, old, summed)

    def _newly_spoiled(self):
        """In how many of the model's variables this step left a non-finite value."""
        if self._spoiled is None:
            return ops.convert_to_tensor(0.0, "float32")
        before, now = self._spoiled, spoiled(self.model)
        newly = [now[v] & ~before[v] if v in before else now[v] for v in now]
        return sum(
            (ops.cast(n, "float32") for n in newly),
            ops.convert_to_tensor(0.0, "float32"),
        )

    def _transform(self, site, optimizer, local, sums, summed, shown, window):
        """What `apply` is given where the policy changed the gradients.

        Returns:
            `(gradients, their sums over the replicas)`; while nothing is changed, what
            came.
        """
        factor = scaling.loss_scale(optimizer)
        count = self.runner.count

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

        *handed, site.clipped_norm = cond(site.change, change, keep)
        parts = window.accumulators
        empty = [ops.zeros_like(part) for part in values_of(parts)]
        self.runner.restore(site.change, parts, empty)
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
                lambda index: self.monitor.store.renew(f"rate_scale/{index}", 1.0),
            )

    # -- the weights before and after ----------------------------------------------

    def _judge_update(self, site, optimizer, variables, old, places, window):
        plan = self.monitor.plan

        def measure():
            return _update_statistics(old, variables)

        def missing():
            return ops.zeros((len(variables), 2), "float32") + MISSING

        measurable = self.step.update_measured
        if window.partial is not None:
            measurable = measurable & ~window.partial
        if _rewrites(optimizer):
            measurable = ops.convert_to_tensor(False, "bool")
        matrix = cond(measurable, outlined(measure), missing)
        connected = [place in places for place in range(len(site.names))]
        self.step.judge_update(site, expand(matrix, connected))
        if plan.skips and any(d.after_update for d in plan.detectors):
            self.runner.restore(site.revert, variables, old)

    def _hold(self, site, optimizer, variables, old, gradients):
        """Cuts an update down to the trust region, where it must be.

        A moving average of the weights is taken along: what was cut off was in it.
        """
        averages = averages_of(optimizer, variables)
        targets = [*variables, *(pair[0] for pair in averages if pair)]

        def inner(groups, moved):
            return sparse.inner(gradients, groups, moved)

        def limited():
            made = values_of(variables)
            weights, held = self.step.limit(site, old, made, inner)
            pairs = zip(weights, variables, strict=True)
            weights = [_constrained(ops.cast(w, v.dtype), v) for w, v in pairs]
            corrected = [
                _corrected(pair[0], pair[1], weight - after)
                for pair, weight, after in zip(averages, weights, made, strict=True)
                if pair
            ]
            return [*weights, *corrected], held

        held = self.runner.replace_if(site.hold, targets, limited)
        self.step.note_hold(site, held)

    # -- several sites in one step -------------------------------------------------

    def _remember(self, optimizer, variables):
        written = _unique([*variables, *optimizer.variables])
        self._before.append((written, self.runner.copies(written)))

    def restore_sites(self):
        """Takes back earlier sites' updates where a later site of the step tripped."""
        for index in reversed(range(len(self._before) - 1)):
            later = self.step.skipped & ~self.step.sites[index].skip
            self.runner.restore(later, *self._before[index])

    def _skipped(self):
        """Whether the batch is to leave no trace in the model's state, a scalar."""
        skipped = self.step.skipped
        if self._spoiled is not None and self.runner.state_comes_late:
            # An overflow of the loss scale is no event, but must not do this.
            overflow = any_of([site.overflow for site in self.step.sites])
            skipped = skipped | (overflow & (self._newly_spoiled() > 0))
        return skipped

    def finish(self):
        """Ends the step; from here on there is an `outcome`."""
        if self.outcome is None:
            self.monitor.remembered = None  # no step that may go the short way
            self.outcome = self._recorded()

    def _recorded(self):
        self.step.finish(self._rates)
        return Outcome(bool(self.step.sites), self._skipped(), self.step.any_event)


def _rewrites(optimizer):
    return any(isinstance(leaf, REWRITING) for leaf in rates.leaves(optimizer))


def _update_statistics(old, variables):
    """What an update has done, [V, 2]; see `statistics.update_statistics`."""
    before = [_constrained(a, v) for a, v in zip(old, variables, strict=True)]
    return statistics.update_statistics(before, values_of(variables))


def _unique(variables):
    return list({id(v): v for v in variables}.values())


def _corrected(average, share, change):
    value = ops.convert_to_tensor(average)
    return value + ops.cast(share, value.dtype) * ops.cast(change, value.dtype)


def _constrained(value, variable):
    """Weights as their constraint has them, if they have one.

    What a constraint does to the first weights, which need not satisfy it, is no
    update: it moves them at a rate of zero, too.
    """
    constraint = getattr(variable, "constraint", None)
    if constraint is None:
        return value
    return constraint(ops.reshape(value, variable.shape))


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
