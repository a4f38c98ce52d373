"""What a step does about a detector that tripped, beside skipping: cut and halt."""

from keras import ops

# What is left after one step of a step that was counted towards a cut.
FADING = 0.95
# "The last cut was made here", before the first: far enough back for every cooldown.
LONG_AGO = -(2**30)


def cut_rate(step, tripped, rates):
    """Cuts the rate where a `CutRate` or a `Hold` follows what happened.

    Args:
        step: The `Step` that is traced.
        tripped: Tensor [D], bool, which detectors tripped.
        rates: `rates.Rates` of the step's optimizers.

    Returns:
        The factor by which the first rate is multiplied after this step, a scalar.
    """
    factors, floors = [], []
    if step.plan.cuts:
        factors, floors = _wanted(step, tripped)
    if step.plan.holds:
        numbers = step.monitor.response_numbers()["hold/min_lr"]
        floor = step.read(step.monitor.variable("hold/min_lr", numbers))
        factors = [*factors, *(site.rate_factor for site in step.sites)]
        floors = [*floors, *(floor for _ in step.sites)]
    if not factors:
        return ops.convert_to_tensor(1.0, "float32")
    wanted = zip(factors, floors, strict=True)
    floors = [ops.where(factor < 1, floor, 0.0) for factor, floor in wanted]
    return rates.cut(ops.stack(factors), ops.stack(floors))


def _wanted(step, tripped):
    """The factors and floors of all `CutRate`s in this step, two lists of scalars."""
    monitor, count = step.monitor, len(step.plan.cuts)
    numbers = monitor.response_numbers()
    masks = step.read(monitor.variable("cut/mask", numbers["cut/mask"]))
    factors = step.read(monitor.variable("cut/factor", numbers["cut/factor"]))
    cooldown = step.read(monitor.variable("cut/cooldown", numbers["cut/cooldown"]))
    floor = step.read(monitor.variable("cut/min_lr", numbers["cut/min_lr"]))
    patience = step.read(monitor.variable("cut/patience", numbers["cut/patience"]))
    last = monitor.variable("cut/last", [LONG_AGO] * count, "int32")
    counted = monitor.variable("cut/counted", [0.0] * count)
    since = ops.cast(step.number - step.read(last), "float32")
    hit = ops.any((masks > 0) & tripped[None], axis=1)
    hit = hit & step.responding & ~step.halted
    # What was counted has faded a little: 3 in a row are just below 3.
    total = FADING * step.read(counted) + ops.where(hit, 1.0, 0.0)
    wanted = hit & (ops.ceil(total) >= patience) & (since > cooldown)
    step.updates.append((last, ops.where(wanted, step.number, step.read(last))))
    step.updates.append((counted, ops.where(wanted, 0.0, total)))
    factors = ops.where(wanted, factors, 1.0)
    return ops.unstack(factors, count), ops.unstack(floor, count)


def count_halts(step, tripped):
    """Counts a tripped step for each `Halt`, and halts training at its limit.

    Args:
        step: The `Step` that is traced.
        tripped: Tensor [D], bool, which detectors tripped.

    Returns:
        Scalar bool, whether this step halted training.
    """
    if not step.plan.halts:
        return ops.convert_to_tensor(False, "bool")
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
