"""What is recorded of a step: one row of the ring."""

import math

from keras import ops

from keras_gradwatch.records.rows import (
    APPLIED,
    OVERFLOWED,
    SCALARS,
    SKIPPED,
)
from keras_gradwatch.statistics.names import OF_UPDATES
from keras_gradwatch.train_step.application import MISSING, constant


def of_normal(norm, loss, rate):
    """The scalars [10] of an application in which nothing happened.

    Args:
        norm: Scalar float32, the global norm.
        loss: Scalar float32.
        rate: Scalar float32, the learning rate.
    """
    rest = [APPLIED, 0, 0, MISSING, 0, 0]
    measured = ops.stack([norm, norm, loss, rate])
    return ops.concatenate([measured, ops.convert_to_tensor(rest, "float32")])


def of_application(measured, decision, **values):
    """The scalars [10] of an application that was examined.

    Args:
        measured: `Measured`.
        decision: `Decision`.
        values: Those of `SCALARS` that are in neither.
    """
    outcome = ops.where(decision.overflow, OVERFLOWED, APPLIED)
    skipped = decision.skip | (decision.left_out & ~decision.overflow)
    scalars = {
        "global_norm": measured.norm,
        "loss": measured.loss,
        "learning_rate": measured.rate,
        "outcome": ops.where(skipped, SKIPPED, outcome),
        "nonfinite": ~measured.finite,
        **values,
    }
    return ops.stack([ops.cast(scalars[name], "float32") for name in SCALARS])


def with_loss(scalars, loss):
    """The scalars [10] of an application with another loss."""
    place = SCALARS.index("loss")
    loss = ops.reshape(ops.cast(loss, "float32"), (1,))
    return ops.concatenate([scalars[:place], loss, scalars[place + 1 :]])


def recorded(names, gradient_names, matrix, updates=None):
    """The recorded statistics [P, K] of the watched variables.

    Args:
        names: Names of the K columns.
        gradient_names: Names of the columns of `matrix`.
        matrix: Tensor [P, C], statistics of the gradients.
        updates: Tensor [P, 2], weight norms and update ratios; None: not measured.
    """
    if tuple(names) == tuple(gradient_names):
        return matrix
    if updates is None:
        updates = ops.zeros_like(matrix[:, :2]) + MISSING
    assert tuple(names) == (*gradient_names, *OF_UPDATES)
    return ops.concatenate([matrix, updates], axis=1)


def of_step(layout, results, places):
    """The row of a step.

    Args:
        layout: `Layout`.
        results: List of `Result`, one for each application.
        places: For each of them, the indices of its watched variables in the layout.

    Returns:
        Tensor [width], float32.
    """
    shown = min(len(results), layout.applications)
    scalars = [result.scalars for result in results[:shown]]
    absent = layout.applications - shown
    if absent:
        missing = ops.convert_to_tensor([MISSING] * (absent * len(SCALARS)), "float32")
        scalars.append(missing)
    return ops.concatenate([*scalars, _matrix(layout, results, places)])


def _matrix(layout, results, places):
    """The statistics of all variables, flat; NaN where there is no gradient."""
    count, columns = len(layout.variables), len(layout.statistics)
    every = [place for own in places for place in own]
    if every == list(range(count)) and len(results) == 1:
        return ops.reshape(results[0].matrix, (count * columns,))
    if not count or not results:
        return ops.zeros((count * columns,), "float32") + constant(math.nan)
    missing = ops.zeros((1, columns), "float32") + constant(math.nan)
    rows = ops.concatenate([*(result.matrix for result in results), missing])
    # Of several applications with the same variable, the last one counts.
    where = {place: row for row, place in enumerate(every)}
    order = [where.get(place, len(every)) for place in range(count)]
    return ops.reshape(ops.take(rows, order, axis=0), (count * columns,))
