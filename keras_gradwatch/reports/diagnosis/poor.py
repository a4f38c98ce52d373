"""Runs that learn, but far less than they could, for a reason that is in sight.

A loss that stays high is no fault by itself: the data may hold no more. It is named
only beside a setting that is known to cost most of what could be learned.
"""

from keras_gradwatch.reports.diagnosis.data import constant_answer, large_inputs
from keras_gradwatch.reports.diagnosis.finding import Finding
from keras_gradwatch.reports.diagnosis.kernels import (
    LARGE_GAIN,
    kernels,
    largest_update,
)
from keras_gradwatch.reports.diagnosis.settings import high_dropout

# Fraction of a constant answer's loss above which little has been learned; and with a
# layer of one unit, through which hardly more than one class can be told from others.
LITTLE, LITTLE_OF_ONE = 0.6, 0.3
# Fewest steps after which that is said, and steps from which on a run is no short one.
FEWEST, SHORT = 20, 150
# Fraction of a constant answer's loss above which a run has hardly begun to learn.
HARDLY = 0.9
# A dropout, a momentum and a √fan_in · std of recurrent weights that cost most of it.
DROPOUT, MOMENTUM, GAIN = 0.7, 0.99, 1.5
# Fraction of a kernel that no update exceeds where it is not the momentum.
LITTLE_MOVED = 0.01
# First loss, in units of a constant answer's, from which large weights cost most of it.
FAR = 10.0
# Root mean square of inputs that cost most of it.
INPUTS = 20.0


def poor(summary):
    """Finds a loss near that of a constant prediction, if there is a reason for it."""
    constant = constant_answer(summary)
    if not constant or summary.steps < FEWEST or not summary.recent:
        return None
    _, recent = summary.losses()
    little = LITTLE_OF_ONE if narrow(summary) else LITTLE
    if not recent > little * constant or not reasons(summary):
        return None
    return Finding(
        "learns poorly",
        f"the loss is {recent:.3g} after {summary.steps} steps; always predicting the "
        f"same value would give {constant:.3g}",
        headline="The model has learned little",
    )


def reasons(summary):
    """Returns why a run may learn little, a list of `Finding`, most certain first."""
    rules = (
        narrow,
        _dropout,
        high_momentum,
        unbounded_recurrent,
        _recurrent,
        _weights,
        _inputs,
        _decayed,
        _short,
    )
    return [finding for rule in rules if (finding := rule(summary))]


def narrow(summary):
    """Finds a hidden layer of one unit before several classes, or returns None."""
    name, units = summary.model.get("narrowest") or (None, None)
    heads = summary.model.get("heads", [])
    classes = max(
        (h["units"] or 0 for h in heads if h["family"] == "classes"), default=0
    )
    if units != 1 or classes < 3:
        return None
    return Finding(
        "structure",
        f"layer `{name}` has a single unit: too few for {classes} classes",
        f"Give `{name}` at least {max(8, 2 * classes)} units.",
        f"`{name}` is too narrow",
    )


def high_momentum(summary):
    """Finds a momentum of 0.99 or more, or returns None.

    In the long run, it multiplies the learning rate by 100 or more.
    """
    momentum, rate = summary.model.get("momentum", 0.0), summary.top_rate
    little = 0 < largest_update(summary) < LITTLE_MOVED
    if not momentum >= MOMENTUM or (momentum < 1 and little):
        return None
    if momentum >= 1:
        return Finding(
            "rate",
            f"a momentum of {momentum:g} never forgets a gradient",
            "Use a momentum of 0.9.",
            f"the momentum of {momentum:g} is too high",
        )
    times = 1 / (1 - momentum)
    return Finding(
        "rate",
        f"a momentum of {momentum:g} multiplies the learning rate of {rate:.3g} by "
        f"{times:.3g} in the long run",
        f"Use a momentum of 0.9, or divide the learning rate by {times / 10:.2g}.",
        f"the momentum of {momentum:g} is too high for a learning rate of {rate:.3g}",
    )


def unbounded_recurrent(summary):
    """Finds an LSTM or GRU whose state is not bounded, or returns None."""
    name, activation = summary.model.get("recurrent") or (None, None)
    if name is None:
        return None
    return Finding(
        "activation",
        f"`{name}` uses `{activation}`, so its state can grow in every time step",
        f"Use the default `tanh` in `{name}`.",
        f"`{name}` uses `{activation}`, which is not bounded",
    )


def _decayed(summary):
    """Finds a learning rate that was almost 0 in half of the steps, or returns None."""
    first, last = summary.rates
    cut = any(summary.actions.get(name) for name in ("rate reduced", "rewound"))
    if cut or summary.slow < summary.steps / 2 or not _hardly_begun(summary):
        return None
    return Finding(
        "low rate",
        f"the learning rate fell from {first:.3g} to {last:.3g}: in {summary.slow} of "
        f"{summary.steps} steps it was below 1% of its initial value",
        "Let the learning rate fall later, or not as far.",
        f"the learning rate fell to {last:.3g}",
    )


def _dropout(summary):
    return high_dropout(summary.model, DROPOUT)


def _recurrent(summary):
    large = [k for k in kernels(summary) if k.recurrent and (k.gain or 0) > GAIN]
    if not large:
        return None
    return Finding(
        "initializer",
        f"the weights of {large[0].name} were large at the first step: √fan_in · std "
        f"is {large[0].gain:.2g} (typical: 1, orthogonal)",
        "Use `orthogonal` weights of gain 1 for the recurrent kernel; `he_normal` or "
        "`glorot_uniform` for the others.",
        "the initial recurrent weights are too large",
    )


def _weights(summary):
    """Finds weights that made the first outputs far too large, or returns None."""
    known = [k for k in kernels(summary) if k.gain is not None and not k.recurrent]
    large = [k for k in known if k.gain > LARGE_GAIN]
    first, constant = summary.first_loss(), constant_answer(summary)
    if len(large) <= len(known) / 2 or not first > FAR * constant:
        return None
    worst = max(large, key=lambda k: k.gain)
    return Finding(
        "initializer",
        f"the weights of {len(large)} of {len(known)} kernels were large at first: "
        f"√fan_in · std is {worst.gain:.2g} in {worst.name} (he_normal: 1.4), and the "
        f"loss began at {first:.3g}",
        "Use `he_normal` for relu and `glorot_uniform` for tanh.",
        "the initial weights are too large",
    )


def _inputs(summary):
    large = [a for a in summary.data["inputs"] if a["rms"] > INPUTS]
    return large_inputs(summary) if large and summary.steps >= SHORT else None


def _hardly_begun(summary):
    """Returns whether the loss is still close to that of a constant prediction."""
    return summary.losses()[1] > HARDLY * constant_answer(summary)


def _short(summary):
    """Finds a run that ends before it has begun to learn, or returns None."""
    if summary.model.get("dry_run"):
        return None  # its length was chosen by whoever called it
    early, recent = summary.losses()
    falls = recent < (0.995 * early)
    if summary.steps >= SHORT or not falls or not _hardly_begun(summary):
        return None
    times = -(-2 * SHORT // summary.steps)
    return Finding(
        "too few steps",
        f"the loss is still falling after {summary.steps} steps ({early:.3g} in the "
        f"first ones, {recent:.3g} in the latest)",
        f"Train for {times} times as many epochs.",
        f"the loss is still falling after {summary.steps} steps",
    )
