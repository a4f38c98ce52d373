"""The flow of one application of an optimizer, from its gradients to its row.

`light_step` is compiled for every run. Nearly every step of a healthy run takes its
first branch: one pass over the gradients, one comparison with the limits, the update,
the row. Its other branch is `careful_step`, a single operation. `full_step`, the
careful step with the trust region, is compiled when a run is in trouble.
"""

from keras import ops

from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.statistics import measure
from keras_gradwatch.train_step import gate, row, trust_region, updates
from keras_gradwatch.train_step.application import (
    MISSING,
    Measured,
    Result,
    constant,
)
from keras_gradwatch.train_step.gradients import apply_unless, changed
from keras_gradwatch.train_step.policy import decide_policy


def light_step(runner, state, application, earlier=()):
    """Applies or skips an update; `earlier` are the step's previous skip flags."""
    if not _may_branch(runner, state.plan, application):
        return careful_step(runner, state, application, earlier)

    squares = measure.squares(application.shown)
    norm = ops.sqrt(ops.sum(squares))
    rate = learning_rate.of(application.optimizer)
    normal = gate.is_normal(state, application, norm, application.loss, rate)
    once = runner.once(
        lambda: application.apply(application.gradients, application.variables)
    )

    def make_update():
        once()
        if state.plan.many_steps and state.plan.protects:
            gate.note_peaks(state, application, norm, application.loss, True)
        names = state.plan.gradient_statistics
        matrix = measure.quick_statistics(ops.sqrt(squares), names)
        return Result(
            row.of_normal(norm, application.loss, rate),
            row.recorded(state.plan.statistics, names, matrix),
            *[constant(False, "bool")] * 3,
        )

    def look_closely():
        inner = application._replace(apply=lambda *_: once())
        return careful_step(runner, state.in_branch(), inner, earlier, rare=True)

    return Result(*runner.branch(normal, make_update, look_closely))


def careful_step(runner, state, application, earlier=(), rare=False, region=False):
    """Does the same as `light_step` with all measurements.

    `rare` marks a branch that a normal step does not enter; `region` limits updates.
    """
    plan = state.plan

    # Measure.
    halted = state.halted if plan.protects else 0.0
    rate = learning_rate.of(application.optimizer)
    looked = gate.wants_look(state, application)
    measured = _measured(state, application, rate, looked, rare)

    # Decide.
    decision, alert = gate.decide(state, application, measured, earlier)

    # Clip, where a policy was asked for.
    clipped, norm = constant(False, "bool"), measured.norm
    if plan.policy is not None:
        clipped, transform = decide_policy(state, application, measured, decision)
        application, norm = changed(runner, application, clipped, transform, norm)

    # Apply, or leave out.
    before = made = held = None
    if region or plan.records_updates:
        before = runner.copies(application.trained, None if region else looked)
    others = trust_region.others_before(runner, application) if region else None
    apply_unless(runner, application, decision, plan.protects)

    # Look at the update that was made.
    if plan.records_updates:
        applied = looked & ~decision.skip & ~decision.overflow
        made = updates.measured(application, before, applied)
    if region:
        held = trust_region.hold(runner, state, application, before, others, decision)
        alert = alert | (held > 0)

    # Record.
    state.plan_next_look(alert)
    scalars = row.of_application(
        measured,
        decision,
        clipped_norm=norm,
        clipped=clipped,
        held=0.0 if held is None else held,
        loss_scale=MISSING if application.scale is None else application.scale,
        halted=halted,
    )
    names = plan.gradient_statistics
    matrix = row.recorded(plan.statistics, names, measured.matrix, made)
    return Result(scalars, matrix, decision.skip, decision.overflow, alert)


def full_step(runner, state, application, earlier=()):
    """Runs the careful step with the trust region, for a run in trouble."""
    return careful_step(runner, state, application, earlier, region=True)


def _may_branch(runner, plan, application):
    """Returns whether norm and loss alone show that a step is normal.

    Not if the loss is unknown, if gradients are scaled or part of a window, if a policy
    looks at each step, if every step is sampled, or if the runner has no branches.
    """
    plain = application.scale is None and application.window.partial is None
    always = plan.policy is not None or plan.samples_always
    known = application.loss is not None
    return runner.branches and plain and known and not always


def _measured(state, application, rate, looked, rare):
    """Returns the `Measured` of an application."""
    plan, partial = state.plan, application.window.partial
    matrix, norm = _statistics(state, application.shown, looked, rare)
    names = plan.gradient_statistics
    finite = ops.equal(ops.sum(matrix[:, names.index("nonfinite_count")]), 0.0)
    loss, loss_finite = constant(MISSING), constant(True, "bool")
    if application.loss is not None:
        loss = application.loss
        loss_finite = ops.isfinite(loss)
    if partial is not None:
        # A micro-batch has no norm: the norm is that of the window's average gradient.
        norm = ops.where(partial, MISSING, norm)
        counts = [name == "nonfinite_count" for name in names]
        kept = ops.convert_to_tensor(counts, "bool")[None] | ~partial
        matrix = ops.where(kept, matrix, MISSING)
    return Measured(matrix, norm, loss, rate, finite & loss_finite, finite)


def _statistics(state, gradients, looked, rare):
    """Returns the statistics of the gradients [P, C], and their global norm."""
    plan, names = state.plan, state.plan.gradient_statistics
    if plan.samples_always or rare:
        return measure.statistics(gradients, names)
    if plan.policy is not None and plan.policy.reads_details:
        looked = looked | (state.control["clipping"] > 0)
    return measure.measure(gradients, names, looked)
