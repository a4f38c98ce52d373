"""The numbers of a plan, which may change from one `fit` to the next."""

import numpy as np


def knobs(plan, live, standing):
    """The numbers that a step reads, by name; none of them is built into the step.

    Args:
        plan: The `Plan` in force.
        live: Whether a `fit` with callbacks is running.
        standing: Whether a policy holds outside of it, too.

    Returns:
        Dict of float32 arrays: switches, frequencies in steps, the settings of each
        detector `detector_INDEX`, of the `policy` and of the `trust` region, and masks
        [R, D] and numbers [R] of the R responses of a kind.
    """
    policy = plan.policy is not None
    values = {
        "policy_on": policy and (live or standing),
        "responses_on": live,
        # A policy never clips what is not finite: it has such steps skipped.
        "guard_on": standing or (live and plan.protects),
        "sample_freq": plan.sample_freq,
        "dense_steps": plan.dense_steps,
        "histogram_freq": plan.histogram_freq,
        "batch_limit": plan.save_batch if live else 0,
    }
    for index, detector in enumerate(plan.detectors):
        values |= _settings(f"detector_{index}", detector)
    if policy:
        values |= _settings("policy", plan.policy)
    if plan.holds:
        values |= _settings("trust", plan.holds[0][0].region)
    values |= _responses(plan)
    return {name: np.asarray(value, "float32") for name, value in values.items()}


def _settings(name, method):
    return {f"{name}/{setting}": value for setting, value in method.settings.items()}


def _responses(plan):
    numbers = {}
    if plan.skips:
        numbers["skip/mask"] = np.any([m for _, m in plan.skips], axis=0)
    if plan.cuts:
        cuts = [c for c, _ in plan.cuts]
        numbers["cut/mask"] = [m for _, m in plan.cuts]
        for name in ("factor", "cooldown", "min_lr", "patience"):
            numbers[f"cut/{name}"] = [getattr(cut, name) for cut in cuts]
    if plan.holds:
        hold, mask = plan.holds[0]
        numbers["hold/mask"] = mask
        numbers["hold/min_lr"] = hold.min_lr
    if plan.halts:
        numbers["halt/mask"] = [m for _, m in plan.halts]
        numbers["halt/limit"] = [h.limit for h, _ in plan.halts]
    return numbers
