"""What happened, in plain words."""

from collections import Counter

ADVICE = {
    "nonfinite": (
        "Look at that batch (NaN or huge inputs or targets?), at divisions, logs and "
        "exponentials in the model and the loss, and scale the inputs."
    ),
    "update": (
        "The learning rate is too high for these weights and inputs: begin with the "
        "rate that it ended at, or scale the inputs to about unit size."
    ),
    "norm spike": (
        "Look at the batches of these steps; clip the gradients to a norm a little "
        "above the usual one, or warm the rate up."
    ),
    "loss spike": (
        "Lower the learning rate, or look for outliers in the targets of these steps "
        "(a Huber loss forgives them)."
    ),
}
"""What to change, by the kind of the first event."""


def explain(events, steps=None, rates=None, stopped=False):
    """Tells what a run went through and what to change.

    Args:
        events: List of `Event`, in order.
        steps: Number of steps in all, or None.
        rates: `(first, last)` learning rate, or None.
        stopped: True if training was ended because of the events.

    Returns:
        Text of a few lines.
    """
    of_steps = f" of {steps}" if steps is not None else ""
    if not events:
        return f"no explosion{f' in {steps} steps' if steps is not None else ''}."
    kinds = Counter(e.kind for e in events)
    actions = Counter(e.action for e in events)
    tripped = len({e.step for e in events})
    kinds = ", ".join(f"{n} x {kind}" for kind, n in kinds.most_common())
    actions = ", ".join(f"{n} x {action}" for action, n in actions.most_common())
    lines = [
        "training was stopped by an explosion." if stopped else "",
        f"steps that tripped: {tripped}{of_steps} ({kinds}); what was done: {actions}.",
        f"first: {events[0].message}.",
    ]
    if rates is not None and rates[1] < rates[0]:
        lines.append(f"learning rate: {rates[0]:.3g} at first, {rates[1]:.3g} now.")
    if events[0].kind in ADVICE:
        lines.append(f"what to change: {ADVICE[events[0].kind]}")
    return "\n".join(line for line in lines if line)
