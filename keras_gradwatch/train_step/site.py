"""One application of an optimizer within a step."""

from dataclasses import dataclass, field

from keras import ops

from keras_gradwatch.detectors import Measurement

MISSING = float("nan")


@dataclass
class Site:
    """One application of an optimizer within a step.

    Attributes:
        index: Its place in the step.
        names: Names of its V variables.
        connected: For each variable, whether it has a gradient.
        measured: `Measurement` before the update.
        memory: What it remembers from step to step, `Packed`.
        verdicts: List of D verdicts.
        skip: Scalar bool, the update is left out.
        revert: Scalar bool, the update is put back.
        change: Scalar bool, the policy changes the gradients.
        limits: What the policy decided.
        clipped_norm: Scalar float32, the global norm after the policy.
        overflow: Scalar bool, a loss scale overflowed, and its optimizer leaves the
            update out.
        lasting: Scalar bool, it has done so for long.
        left_out: Scalar bool, a dynamic loss scale leaves the update out, for whatever
            non-finite gradient.
    """

    index: int
    names: list
    connected: list
    measured: Measurement
    memory: object
    verdicts: list = field(default_factory=list)
    skip: object = None
    revert: object = None
    change: object = None
    limits: dict = field(default_factory=dict)
    clipped_norm: object = None
    trust: object = None
    hold: object = None
    held: object = None
    radius: object = None
    rate_factor: object = None
    overflow: object = None
    lasting: object = None
    left_out: object = None


def expand(matrix, connected):
    """Rows of the connected variables [P, C] to rows of all [V, C], NaN elsewhere."""
    if all(connected):
        return matrix
    places, present = [], 0
    for has_gradient in connected:
        places.append(present if has_gradient else sum(connected))
        present += has_gradient
    missing = ops.zeros((1, matrix.shape[1]), "float32") + MISSING
    return ops.take(ops.concatenate([matrix, missing]), places, axis=0)


def contract(matrix, connected):
    """What there is of all variables [V, ...], of the connected ones [P, ...]."""
    if all(connected):
        return matrix
    places = [i for i, has_gradient in enumerate(connected) if has_gradient]
    return ops.take(matrix, places, axis=0)


def size(shape):
    size = 1
    for length in shape:
        size *= length
    return float(size)


def any_of(flags):
    """Whether any of a list of scalar bool tensors is True; False for none."""
    first, *rest = flags or [ops.convert_to_tensor(False, "bool")]
    for flag in rest:
        first = first | flag
    return first
