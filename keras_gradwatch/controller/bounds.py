"""The limits of all detectors combined, as the gate compares with them."""

import dataclasses
import math

import numpy as np

from keras_gradwatch.detectors.checks import checked_limits
from keras_gradwatch.detectors.observation import FLOOR
from keras_gradwatch.train_step.application import MAX_APPLICATIONS
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

COLUMNS = {"global_norm": NORM, "loss": LOSS}


@dataclasses.dataclass
class Bounds:
    """The limits for the next steps.

    Attributes:
        matrix: float32 array [S, 4, 4], the value of the variable `limits`.
        of_detectors: For each application, a dict of a detector's label to its limits.
        patience: Skips in a row after which a step passes the soft limits.
        update_limit: Largest update ratio that is not reverted.
        update_floor: Smallest root mean square that is assumed for weights.
    """

    matrix: np.ndarray
    of_detectors: list
    patience: float = PATIENT
    update_limit: float = math.inf
    update_floor: float = FLOOR


def draw(plan, states, next_look, rate_line, loss_limit=math.inf, halted=False):
    """Computes the `Bounds` for the next steps.

    Args:
        states: For each application, a dict of a detector's label to its state.
        next_look: Next step whose statistics are sampled.
        rate_line: Learning rate above which an update is measured.
        loss_limit: Loss above which the next update is skipped.
    """
    matrix = np.empty((MAX_APPLICATIONS, 4, 4), "float32")
    matrix[:] = np.array([-UNLIMITED, UNLIMITED, UNLIMITED, UNLIMITED])[:, None]
    bounds = Bounds(matrix, [{} for _ in range(MAX_APPLICATIONS)])
    gating = [d for r in plan.responses if r.gates for d in r.detectors]
    followed = [d for r in plan.responses for d in r.detectors]
    for index, own in enumerate(states):
        for label, detector in plan.labelled:
            if detector in followed:
                limits = checked_limits(detector, own[label])
                bounds.of_detectors[index][label] = limits
                _take_in(bounds, index, limits, detector, detector in gating)
    # Further applications have the limits of the last one.
    last = len(states) - 1
    matrix[last:] = matrix[last]
    bounds.of_detectors[last:] = [bounds.of_detectors[last]] * (MAX_APPLICATIONS - last)
    matrix[:, HIGH:, LOSS] = np.minimum(matrix[:, HIGH:, LOSS], loss_limit)
    matrix[:, HIGH:, RATE] = min(rate_line, UNLIMITED)
    matrix[:, HIGH:, STEP] = next_look - 0.5
    if halted:
        matrix[:, HIGH, STEP] = -1  # no step is a normal one
    return bounds


def _take_in(bounds, index, limits, detector, gates):
    """Narrows the bounds of one application to the limits of a detector."""
    hard = gates and detector.patience is None
    for quantity, (low, high) in limits.items():
        if quantity == "update_ratio":
            if gates:
                bounds.update_limit = min(bounds.update_limit, high)
                floor = detector.settings.get("floor", bounds.update_floor)
                bounds.update_floor = floor
            continue
        column, matrix = COLUMNS[quantity], bounds.matrix[index]
        matrix[HIGH, column] = min(matrix[HIGH, column], high)
        if gates:
            matrix[SOFT, column] = min(matrix[SOFT, column], high)
        if hard:
            matrix[HARD, column] = min(matrix[HARD, column], high)
        if gates and low > 0:
            matrix[LOW, column] = max(matrix[LOW, column], low)
    if gates and detector.patience is not None:
        bounds.patience = min(bounds.patience, detector.patience)
