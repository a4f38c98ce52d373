"""What a step reads and writes in addition to the model's own variables."""

import copy

import numpy as np
from keras import ops

from keras_gradwatch.train_step.application import MAX_APPLICATIONS

CONTROL = (
    "responding",  # 1 while a `fit` with callbacks that act is running
    "guarding",  # 1 while updates that are not finite are skipped
    "clipping",  # 1 while the policy acts
    "halted",  # 1: no update is applied any more
    "halt_after",  # tripped steps after which no update is applied any more
    "halt_on_nonfinite",  # 1 where a step that is not finite counts for that
    "halt_on_limits",  # 1 where a step outside of the limits counts for that
    "sample_every",  # steps between two samples of the costly statistics
    "patience",  # skips in a row after which a finite step passes the limits
    "radius",  # fraction of a kernel that an update may change, in the full step
    "element",  # largest change of one element, in units of radius · rms(w)
    "decrease",  # largest decrease of the loss that an update may aim at
    "histogram_every",  # steps between two histograms; 0: none
    "batch_limit",  # size in bytes up to which a batch is kept
)
"""The values that the host sets for the step: float32 values of one variable."""

# Limits of one application: rows and columns of a matrix [4, 4].
LOW, HIGH, SOFT, HARD = 0, 1, 2, 3
NORM, LOSS, RATE, STEP = 0, 1, 2, 3
LIMITS_SHAPE = (MAX_APPLICATIONS, 4, 4)

GATE = ("trips", "streak", "last_trip", "alert")
"""What the gate remembers from step to step: float32 values of one variable."""

UNLIMITED = 3.4028235e38
# The patience of limits that no step passes.
PATIENT = 1e9


class StepState:
    """The monitor's variables in one step.

    Attributes:
        number: Scalar int32, the step, from 0.
        limits: Tensor [S, 4 bounds, 4 quantities] of the S applications. A step between
            `LOW` and `HIGH` is normal. Below `LOW` or above `HARD`, the update is
            skipped; above `SOFT`, only until `patience` skips in a row.
    """

    def __init__(self, monitor):
        self.monitor, self.plan = monitor, monitor.plan
        self.number = ops.copy(monitor.variable("step"))
        self.limits = ops.copy(monitor.variable("limits"))
        self._control = self._gate = None

    @property
    def control(self):
        """The values that the host sets, a dict of scalars, read when first needed."""
        if self._control is None:
            vector = ops.copy(self.monitor.variable("control"))
            policy = self.plan.policy.settings if self.plan.policy else ()
            names = (*CONTROL, *(f"policy/{name}" for name in policy))
            self._control = dict(
                zip(names, ops.unstack(vector, len(names)), strict=True)
            )
        return self._control

    @property
    def gate(self):
        """The gate's memory at the start of the step, a dict of scalars."""
        if self._gate is None:
            vector = ops.copy(self.monitor.variable("gate"))
            self._gate = dict(zip(GATE, ops.unstack(vector, len(GATE)), strict=True))
        return self._gate

    @property
    def policy_settings(self):
        """The settings of the policy, a dict of scalars."""
        return {
            name: self.control[f"policy/{name}"] for name in self.plan.policy.settings
        }

    @property
    def responding(self):
        """Whether callbacks that act are running, a scalar bool."""
        return self.control["responding"] > 0

    @property
    def halted(self):
        """Whether updates have stopped for good, a scalar bool."""
        control = self.control
        return (control["halted"] > 0) | (self.gate["trips"] >= control["halt_after"])

    def in_branch(self):
        """Copies the state for a branch, as tensors read there must not leave it."""
        same = copy.copy(self)
        same._control = same._gate = None
        return same

    def limits_of(self, index):
        """Returns the limits [4, 4] of one application."""
        return self.limits[index]

    def write_gate(self, **values):
        """Assigns some values of the gate's memory."""
        self._gate = {**self.gate, **values}
        self.monitor.variable("gate").assign(ops.stack(list(self._gate.values())))

    def plan_next_look(self, alert):
        """Schedules the slow branch: at once if `alert`, else at the next sample."""
        following = self.number + 1
        every = ops.cast(self.control["sample_every"], "int32")
        due = following + (-following) % ops.maximum(every, 1)
        due = ops.cast(ops.where(alert, following, due), "float32") - 0.5
        is_step = np.zeros(LIMITS_SHAPE, bool)
        is_step[:, HIGH, STEP] = True
        self.monitor.variable("limits").assign(ops.where(is_step, due, self.limits))
