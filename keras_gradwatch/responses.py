"""What a step does about a detector that tripped, beside skipping: cut and halt."""

from keras import ops

# "The last cut was made here", before the first: far enough back for every cooldown.
LONG_AGO = -(2**30)


def cut_rate(step, tripped, rates):
    """Cuts the rate where a `CutRate` follows a detector that tripped.

    Args:
        step: The `Step` that is traced.
        tripped: Tensor [D], bool, which detectors tripped.
        rates: `rates.Rates` of the step's optimizers.

    Returns:
        The factor by which the first rate is multiplied after this step, a scalar.
    """
    factor = ops.convert_to_tensor(1.0, "float32")
    if not step.plan.cuts:
        return factor
    monitor = step.monitor
    numbers = monitor.response_numbers()
    masks = step.read(monitor.variable("cut/mask", numbers["cut/mask"]))
    factors = step.read(monitor.variable("cut/factor", numbers["cut/factor"]))
    cooldown = step.read(monitor.variable("cut/cooldown", numbers["cut/cooldown"]))
    floor = step.read(monitor.variable("cut/min_lr", numbers["cut/min_lr"]))
    last = monitor.variable("cut/last", [LONG_AGO] * len(step.plan.cuts), "int32")
    since = ops.cast(step.number - step.read(last), "float32")
    wanted = ops.any((masks > 0) & tripped[None], axis=1) & (since > cooldown)
    wanted = wanted & step.responding & ~step.halted
    wanted_factors = ops.where(wanted, factors, 1.0)
    factor = rates.cut(wanted_factors, ops.where(wanted, floor, 0.0))
    step.updates.append((last, ops.where(wanted, step.number, step.read(last))))
    return factor


def count_halts(step, tripped):
    """Counts a tripped step for each `Halt`, and halts training at its limit.

    Args:
        step: The `Step` that is traced.
        tripped: Tensor [D], bool, which detectors tripped.

    Returns:
        Scalar bool, whether this step halted training.
    """
    if not step.plan.halts:
        return ops.convert_to_tensor(False)
    monitor = step.monitor
    numbers = monitor.response_numbers()
    masks = step.read(monitor.variable("halt/mask", numbers["halt/mask"]))
    limits = step.read(monitor.variable("halt/limit", numbers["halt/limit"]))
    hits = monitor.variable("halt/hits", [0.0] * len(step.plan.halts))
    hit = ops.any((masks > 0) & tripped[None], axis=1)
    hit = hit & step.responding & ~step.halted
    counted = step.read(hits) + ops.where(hit, 1.0, 0.0)
    halted = step.halted | ops.any(hit & (counted >= limits))
    step.updates.append((hits, counted))
    step.updates.append((monitor.variable("halted", 0.0), ops.where(halted, 1.0, 0.0)))
    return halted & ~step.halted
