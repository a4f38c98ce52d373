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
        floor = step.knobs["hold/min_lr"]
        factors = [*factors, *(site.rate_factor for site in step.sites)]
        floors = [*floors, *(floor for _ in step.sites)]
    if not factors:
        return ops.convert_to_tensor(1.0, "float32")
    wanted = zip(factors, floors, strict=True)
    floors = [ops.where(factor < 1, floor, 0.0) for factor, floor in wanted]
    return rates.cut(ops.stack(factors), ops.stack(floors))


def _wanted(step, tripped):
    """The factors and floors of all `CutRate`s in this step, two lists of scalars."""
    knobs, memory, count = step.knobs.part("cut"), step.memory, len(step.plan.cuts)
    last, counted = memory["cut/last"], memory["cut/counted"]
    hit = ops.any((knobs["mask"] > 0) & tripped[None], axis=1)
    hit = hit & step.responding & ~step.halted
    # What was counted has faded a little: 3 in a row are just below 3.
    ago = step.clock - memory["cut/counted_at"]
    total = counted * ops.power(FADING, ago) + 1.0
    cool = step.clock - last > knobs["cooldown"]
    wanted = hit & (ops.ceil(total) >= knobs["patience"]) & cool
    memory.put("cut/last", ops.where(wanted, step.clock, last))
    left = ops.where(wanted, 0.0, total)
    memory.put("cut/counted", ops.where(hit, left, counted))
    at = ops.where(hit, step.clock, memory["cut/counted_at"])
    memory.put("cut/counted_at", at)
    factors, floor = knobs["factor"], knobs["min_lr"]
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
    knobs, memory = step.knobs.part("halt"), step.memory
    hit = ops.any((knobs["mask"] > 0) & tripped[None], axis=1)
    hit = hit & step.responding & ~step.halted
    counted = memory["halt/hits"] + ops.where(hit, 1.0, 0.0)
    halted = step.halted | ops.any(hit & (counted >= knobs["limit"]))
    memory.put("halt/hits", counted)
    memory.put("halted", ops.where(halted, 1.0, 0.0))
    return halted & ~step.halted


def initial_memory(plan):
    """What the responses of a plan remember before the first step, a dict of arrays."""
    cuts, halts = len(plan.cuts), len(plan.halts)
    return {
        "halted": 0.0,
        "cut/last": [LONG_AGO] * cuts,
        "cut/counted": [0.0] * cuts,
        "cut/counted_at": [LONG_AGO] * cuts,
        "halt/hits": [0.0] * halts,
    }
