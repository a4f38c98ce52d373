"""What is recorded of a step: one row of the ring buffer."""

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
    """Returns the scalars [10] of an application in which nothing happened."""
    rest = [APPLIED, 0, 0, MISSING, 0, 0]
    measured = ops.stack([norm, norm, loss, rate])
    return ops.concatenate([measured, ops.convert_to_tensor(rest, "float32")])


def of_application(measured, decision, **values):
    """Returns the scalars [10] of an examined application; `values` has the rest."""
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
    """Returns a copy of `scalars` [10] whose loss is `loss`."""
    place = SCALARS.index("loss")
    loss = ops.reshape(ops.cast(loss, "float32"), (1,))
    return ops.concatenate([scalars[:place], loss, scalars[place + 1 :]])


def recorded(names, gradient_names, matrix, updates=None):
    """Returns the recorded statistics [P, K] of the watched variables, columns `names`.

    `matrix` is [P, C], columns `gradient_names`; `updates` [P, 2], None: not measured.
    """
    if tuple(names) == tuple(gradient_names):
        return matrix
    if updates is None:
        updates = ops.zeros_like(matrix[:, :2]) + MISSING
    assert tuple(names) == (*gradient_names, *OF_UPDATES)
    return ops.concatenate([matrix, updates], axis=1)


def of_step(layout, results, places):
    """Returns the row of a step, [width]; `places` has the variables of each result."""
    shown = min(len(results), layout.applications)
    scalars = [result.scalars for result in results[:shown]]
    absent = layout.applications - shown
    if absent:
        missing = ops.convert_to_tensor([MISSING] * (absent * len(SCALARS)), "float32")
        scalars.append(missing)
    return ops.concatenate([*scalars, _matrix(layout, results, places)])


def _matrix(layout, results, places):
    """Returns the statistics of all variables, flat; NaN where there is no gradient."""
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
