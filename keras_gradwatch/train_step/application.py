"""One application of an optimizer within a step, as small tuples of tensors.

A step may apply several optimizers (a GAN), each with its own limits and decision.
"""

import math
from typing import NamedTuple

from keras import ops

MISSING = float("nan")

# Applications in one step that are distinguished. A stock step has one.
MAX_APPLICATIONS = 8


class Application(NamedTuple):
    """The input of an optimizer.

    Attributes:
        index: Place among the applications of the step; the last of `MAX_APPLICATIONS`
            for all further ones.
        optimizer: The optimizer.
        apply: Function of gradients and variables that makes the update.
        gradients: List of V original gradients, None where there is none.
        variables: List of the V variables.
        places: Indices of the P variables whose gradients are watched.
        trained: List of the P variables.
        local: List of P original gradients, of this replica only.
        sums: List of P gradients, summed over the replicas.
        summed: List of P gradients, also unscaled and averaged over the window.
        shown: `summed` with `SparseRows` for sparse gradients: what the optimizer would
            see on one device.
        window: `Window`, the accumulation window.
        loss: Scalar float32, or None if unknown.
        scale: Loss scale, scalar float32, or None.
        newly_nonfinite: Scalar float32, the number of the model's variables in which
            the forward pass left a non-finite value; None if not measured.
    """

    index: int  # type: ignore[assignment]  # hides `tuple.index`, which nobody needs
    optimizer: object
    apply: object
    gradients: list
    variables: list
    places: list
    trained: list
    local: list
    sums: list
    summed: list
    shown: list
    window: object
    loss: object
    scale: object
    newly_nonfinite: object


class Measured(NamedTuple):
    """Measurements of an application before its update.

    Attributes:
        matrix: Tensor [P, C], statistics of the gradients.
        norm: Scalar float32, the global norm.
        loss: Scalar float32; NaN if unknown.
        rate: Scalar float32, the learning rate in effect.
        finite: Scalar bool: all gradients, and the loss where known, are finite.
        gradients_finite: Scalar bool: all gradients are finite.
    """

    matrix: object
    norm: object
    loss: object
    rate: object
    finite: object
    gradients_finite: object


class Decision(NamedTuple):
    """The decision of the gate, scalar bool tensors.

    Attributes:
        skip: The update is skipped.
        overflow: The loss scale overflowed, so its optimizer skips the update.
        left_out: The optimizer itself skips the update, because some gradient is not
            finite.
    """

    skip: object
    overflow: object
    left_out: object


class Result(NamedTuple):
    """The result of an application.

    Attributes:
        scalars: Tensor [10], columns as in `records.rows.SCALARS`.
        matrix: Tensor [P, K], the recorded statistics of the watched variables.
        skip: Scalar bool, whether the update was skipped.
        overflow: Scalar bool, as in `Decision`.
        alert: Scalar bool, whether the host should look at this step.
    """

    scalars: object
    matrix: object
    skip: object
    overflow: object
    alert: object


def size(shape):
    """Returns the number of elements of a shape, a float."""
    return float(math.prod(shape))


def any_of(flags):
    """Returns whether any of a list of scalar bool tensors is True; False if empty."""
    first, *rest = flags or [constant(False, "bool")]
    for flag in rest:
        first = first | flag
    return first


def constant(value, dtype="float32"):
    """Returns a scalar tensor."""
    return ops.convert_to_tensor(value, dtype)
