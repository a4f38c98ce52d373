"""One step as a row of the ring buffer."""

import numpy as np
from keras import ops

from keras_gradwatch.records.rows import APPLIED, OVERFLOWED, REVERTED, SCALARS, SKIPPED
from keras_gradwatch.train_step import statistics
from keras_gradwatch.train_step.site import MISSING, any_of, expand
from keras_gradwatch.train_step.statistics import NAMES


def pack(step, rate, factor):
    """The row of one step: scalars, statistics, verdicts, as `Layout` has them.

    Args:
        step: The `Step` that is traced.
        rate: Scalar float32, the learning rate in effect.
        factor: Scalar float32, what the rate is multiplied by after this step.

    Returns:
        Tensor [width], float32.
    """
    sites = step.sites
    revert = any_of([s.revert for s in sites])
    losses = [s.measured.loss for s in sites]
    overflow = any_of([s.overflow for s in sites])
    outcome = ops.where(revert, REVERTED, ops.where(overflow, OVERFLOWED, APPLIED))
    skipped = step.skipped | any_of([s.left_out & ~s.overflow for s in sites])
    outcome = ops.where(skipped, SKIPPED, outcome)
    scalars = {
        "global_norm": _together([s.measured.global_norm for s in sites]),
        "clipped_norm": _together([s.clipped_norm for s in sites]),
        "loss": losses[0] if losses else MISSING,
        "learning_rate": rate,
        "outcome": outcome,
        "clipped": any_of([s.change for s in sites]),
        "held": any_of([s.held for s in sites]),
        "trust_radius": sites[0].radius if sites else MISSING,
        "loss_scale": sites[0].measured.loss_scale if sites else MISSING,
        "rate_factor": factor,
        "halted": ops.where(step.halted, 1.0, ops.where(step.stopped, 2.0, 0.0)),
    }
    parts = [ops.stack([ops.cast(scalars[n], "float32") for n in SCALARS])]
    parts += [ops.reshape(s.measured.statistics, (-1,)) for s in sites]
    offset = 0
    columns = []
    for site in sites:
        columns.append([_verdict_row(v, offset) for v in site.verdicts])
        offset += len(site.names)
    for d in range(len(step.plan.detectors) if columns else 0):
        verdict = columns[-1][d]
        for rows in reversed(columns[:-1]):
            verdict = ops.where(rows[d][0] > 0, rows[d], verdict)
        parts.append(verdict)
    if not columns:
        nothing = ops.convert_to_tensor([0.0, -1.0, MISSING, MISSING])
        parts += [nothing] * len(step.plan.detectors)
    return ops.cast(ops.concatenate(parts), "float32")


def quiet(plan, measured, norms, updates, connected):
    """The row of a step in which nothing happens; see `quiet.Quiet`.

    Args:
        plan: The `Plan` in force.
        measured: The first four of `SCALARS`: global norm, clipped norm, loss, rate.
        norms: Tensor [P], float32, the norms of the connected variables.
        updates: Tensor [P, 2], the last two of their statistics; None: not measured.
        connected: For each of the V variables, whether it has a gradient.

    Returns:
        Tensor [width], float32.
    """
    usual = {
        "outcome": APPLIED,
        "clipped": 0,
        "held": 0,
        "trust_radius": MISSING,
        "loss_scale": MISSING,
        "rate_factor": 1,
        "halted": 0,
    }
    assert (*SCALARS[:4], *usual) == SCALARS
    unsampled = np.full((norms.shape[0], len(NAMES) - 1), MISSING, "float32")
    unsampled[:, NAMES.index("nonfinite_count") - 1] = 0
    if updates is not None:
        unsampled = ops.concatenate([unsampled[:, :-2], updates], axis=1)
    matrix = ops.concatenate([norms[:, None], unsampled], axis=1)
    matrix = ops.reshape(expand(matrix, connected), (-1,))
    silent = np.tile(np.float32([0, -1, MISSING, MISSING]), len(plan.detectors))
    rest = np.float32([*usual.values()])
    return ops.concatenate([ops.stack(measured), rest, matrix, silent])


def _verdict_row(verdict, offset):
    index = verdict.variable
    if offset:
        index = ops.where(index >= 0, index + offset, -1)
    values = (verdict.tripped, index, verdict.value, verdict.baseline)
    return ops.stack([ops.cast(v, "float32") for v in values])


def _together(norms):
    if not norms:
        return ops.convert_to_tensor(MISSING, "float32")
    return norms[0] if len(norms) == 1 else statistics.global_norm(ops.stack(norms))
