"""One application of an optimizer within a step, as small tuples of tensors.

A step may apply several optimizers (a GAN); each application has gradients, limits and
a decision of its own.
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
        index: Its place among the applications of the step.
        optimizer: The optimizer.
        apply: Function of gradients and variables that makes the update.
        gradients: List of V gradients as they came, None where there is none.
        variables: List of the V variables.
        places: Indices of the P variables whose gradients are watched.
        trained: List of the P variables.
        local: List of P gradients as they came, of this replica only.
        sums: List of P, the same summed over the replicas.
        summed: List of P, unscaled, averaged over the accumulation window.
        shown: List of P, the same with `SparseRows` for sparse gradients: what the
            optimizer would see on one device.
        window: `Window`, the accumulation window.
        loss: Scalar float32, or None where it is not known.
        scale: Scalar float32 by which the loss was multiplied, or None.
        newly_nonfinite: Scalar float32, in how many of the model's variables the
            forward pass left a value that is not finite; None: not asked for.
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
    """What was measured of an application before its update.

    Attributes:
        matrix: Tensor [P, C], statistics of the gradients.
        norm: Scalar float32, the global norm.
        loss: Scalar float32; NaN where it is not known.
        rate: Scalar float32, the learning rate in effect.
        finite: Scalar bool: all gradients, and the loss where it is known, are finite.
        gradients_finite: Scalar bool, all gradients are.
    """

    matrix: object
    norm: object
    loss: object
    rate: object
    finite: object
    gradients_finite: object


class Decision(NamedTuple):
    """What the gate decided; scalar bool tensors.

    Attributes:
        skip: The update is skipped.
        overflow: A loss scale overflowed, and its optimizer leaves the update out.
        left_out: The optimizer leaves the update out by itself, for whatever gradient
            that is not finite.
    """

    skip: object
    overflow: object
    left_out: object


class Result(NamedTuple):
    """The result of an application.

    Attributes:
        scalars: Tensor [10], columns as in `records.rows.SCALARS`.
        matrix: Tensor [P, K], the recorded statistics of the watched variables.
        skip: Scalar bool, the update was skipped.
        overflow: Scalar bool, as in `Decision`.
        alert: Scalar bool, something happened that the host should look at.
    """

    scalars: object
    matrix: object
    skip: object
    overflow: object
    alert: object


def size(shape):
    """Number of elements of a variable, a float."""
    return float(math.prod(shape))


def any_of(flags):
    """Whether any of a list of scalar bool tensors is True; False for none."""
    first, *rest = flags or [constant(False, "bool")]
    for flag in rest:
        first = first | flag
    return first


def constant(value, dtype="float32"):
    """A scalar tensor."""
    return ops.convert_to_tensor(value, dtype)
