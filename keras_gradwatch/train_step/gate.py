"""The gate, which decides whether an update is made.

It skips updates that are not finite, or beyond the limits that the host has set.
"""

import numpy as np
from keras import ops

from keras_gradwatch.train_step.application import (
    MAX_APPLICATIONS,
    Decision,
    any_of,
    constant,
)
from keras_gradwatch.train_step.state import (
    HARD,
    HIGH,
    LOSS,
    LOW,
    NORM,
    PATIENT,
    RATE,
    SOFT,
    STEP,
    UNLIMITED,
)

# Within an execution, a step is skipped if its norm or loss is this many times the
# largest so far, from the fourth step on; see `detectors.baseline`.
PEAK, FIRST = 100.0, 3
# At this loss scale or below, it is not the scale that takes gradients out of range: in
# float16 they would have to be larger than 1e9.
LEAST_SCALE = 2.0**-14


def is_normal(state, application, norm, loss, rate):
    """Returns whether an update needs no closer look, a scalar bool; False for NaN."""
    limits = state.limits_of(application.index)
    number = ops.cast(state.number, "float32")
    found = ops.stack([norm, ops.abs(loss), rate, number])
    normal = ops.all((found >= limits[LOW]) & (found <= limits[HIGH]))
    if state.plan.many_steps and state.plan.protects:
        normal = normal & ~_beyond_peaks(state, application, found[: LOSS + 1])
    return normal


def note_peaks(state, application, norm, loss, taken):
    """Updates the largest norm and loss so far, if the step is `taken` into account.

    Between the steps of one execution the host reads nothing and sets no limits.
    """
    peaks = state.monitor.variable("peaks")
    before = ops.copy(peaks)
    own = before[application.index]
    found = ops.stack([norm, ops.abs(loss)])
    new = ops.concatenate([ops.maximum(own[:2], found), own[2:] + 1])
    new = ops.where(taken, new, own)
    is_own = np.zeros((MAX_APPLICATIONS, 1), bool)
    is_own[application.index] = True
    peaks.assign(ops.where(is_own, new[None], before))


def _beyond_peaks(state, application, found):
    """Returns whether norm or loss far exceed their peaks; False once limits exist."""
    peaks = ops.copy(state.monitor.variable("peaks"))[application.index]
    far = (peaks[:2] > 0) & (found > PEAK * peaks[:2])
    limits = state.limits_of(application.index)[HIGH, NORM : LOSS + 1]
    far = far & (limits >= np.float32(UNLIMITED))
    return ops.any(far) & (peaks[2] >= FIRST)


def wants_look(state, application):
    """Returns whether the host wants the sampled statistics now, a scalar bool."""
    high = state.limits_of(application.index)[HIGH]
    return ops.cast(state.number, "float32") > high[STEP]


def decide(state, application, measured, earlier):
    """Decides whether to skip an update, and returns `(Decision, alert)`.

    `earlier` are the step's previous skip flags; `alert` asks the host to look soon.
    """
    plan, never = state.plan, constant(False, "bool")
    overflow, left_out = _overflow(application, measured)
    broken = ~measured.finite & ~overflow
    # A loss alone does no harm: the update is made of the gradients.
    usable = measured.gradients_finite
    if not plan.protects:
        return Decision(never, overflow, left_out), broken
    limits = state.limits_of(application.index)
    found = ops.stack([measured.norm, ops.abs(measured.loss)])
    columns = slice(NORM, LOSS + 1)
    # What is not known (NaN) is within its limits: `broken` shows what is not finite.
    low = ops.any(found < limits[LOW, columns])
    hard = usable & (low | ops.any(found > limits[HARD, columns]))
    soft = usable & ops.any(found > limits[SOFT, columns])
    beyond = usable & (low | ops.any(found > limits[HIGH, columns]))
    if plan.many_steps:
        soft_limits = state.control["patience"] < PATIENT
        far = usable & soft_limits & _beyond_peaks(state, application, found)
        soft, beyond = soft | far, beyond | far
        usual = measured.finite & ~far & ~ops.isnan(measured.norm)
        note_peaks(state, application, measured.norm, measured.loss, usual)
    gate, number = state.gate, ops.cast(state.number, "float32")
    in_a_row = gate["last_trip"] >= number - 1
    streak = ops.where(in_a_row, gate["streak"], 0.0)
    refused = hard | (soft & (streak < state.control["patience"]))
    skip = (state.control["guarding"] > 0) & ~usable & ~overflow
    skip = skip | (state.responding & (refused & ~overflow | state.halted))
    skip = any_of([skip, *earlier])
    # A rate that has risen: the host measures the next updates.
    alert = beyond | broken | overflow | (measured.rate > limits[HIGH, RATE])
    _remember(state, beyond, broken, streak, alert)
    return Decision(skip, overflow, left_out), alert


def _overflow(application, measured):
    """Returns whether a dynamic loss scale overflowed, and whether its optimizer skips.

    An overflow is normal: the gradients are not finite, but the loss is, and the scale
    halves itself. At `LEAST_SCALE`, the gradients themselves are out of range.
    """
    never = constant(False, "bool")
    if application.newly_nonfinite is None:
        return never, never
    # The loss scale does not cause non-finite state that the forward pass has left.
    overflows = ~measured.gradients_finite & (application.newly_nonfinite < 1)
    if application.loss is not None:
        overflows = overflows & ops.isfinite(measured.loss)
    overflows = overflows & (application.scale > LEAST_SCALE)
    return overflows, ~measured.gradients_finite


def _remember(state, beyond, broken, streak, alert):
    gate, control = state.gate, state.control
    number = ops.cast(state.number, "float32")
    counts = (broken & (control["halt_on_nonfinite"] > 0)) | (
        beyond & (control["halt_on_limits"] > 0)
    )
    counts = counts & state.responding & ~state.halted
    state.write_gate(
        trips=gate["trips"] + ops.cast(counts, "float32"),
        streak=ops.where(beyond, streak + 1, gate["streak"]),
        last_trip=ops.where(beyond, number, gate["last_trip"]),
        alert=ops.where(alert, number, gate["alert"]),
    )
