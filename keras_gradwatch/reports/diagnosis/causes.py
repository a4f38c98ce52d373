"""Finds why a run suffers, and what to change, by pure functions of its summary."""

import math

from keras_gradwatch.reports.diagnosis.data import (
    certain,
    doubtful_data,
    large_inputs,
    large_targets,
    scale_inputs,
    scale_targets,
)
from keras_gradwatch.reports.diagnosis.finding import Finding
from keras_gradwatch.reports.diagnosis.kernels import (
    LARGE_GAIN,
    kernels,
    largest_update,
    networks,
)
from keras_gradwatch.reports.diagnosis.penalty import strong_penalty
from keras_gradwatch.reports.diagnosis.poor import (
    high_momentum,
    narrow,
    reasons,
    unbounded_recurrent,
)
from keras_gradwatch.reports.diagnosis.settings import doubts
from keras_gradwatch.reports.diagnosis.symptoms import acute, arrived_at_first

# Root mean square of one input from which inputs are called large; the estimate is too
# high by up to 3 times, so inputs of unit size are never.
LARGE_INPUTS = 5.0
# √fan_in · std of the weights: He has 1.4, Glorot about 1; orthogonal recurrent ones 1.
SMALL_GAIN, LARGE_RECURRENT_GAIN = 0.2, 1.2
# An input of the last layer over one of the first: below this, signals shrink.
SHRUNK = 0.01
# Times that the targets must be larger than what the model says at first.
LARGE_TARGETS = 5.0
# Fraction of healthy norms below which the advised clip is, and fewest steps to say so.
CLIP_QUANTILE, ENOUGH_NORMS = 0.9, 20

# Initial bias below which inputs of unit size do not switch a unit on.
LOW_BIAS = -3.0
# Fraction of a kernel that one update may well change, and the smallest factor of a
# learning rate that is advised.
TRUSTED, LEAST_FACTOR = 0.05, 1e-3
# Times that a learning rate rises, and steps until the first event.
RISE, SOON = 5.0, 50
# Largest update ratio of a run whose learning rate is too low, and least one of a run
# that does not learn because it is too high, or whose units it has saturated.
SLOW, FAST, SATURATES = 1e-3, 0.5, 0.1
# Fraction of a kernel that the updates of a run together must be able to replace.
MOVED = 0.5
# Symptoms of a run that does not learn, without an explosion.
STUCK = {"not learning", "no gradient", "dead units"}
# Symptoms that name their own cause.
NAMED = {
    "bad batches",
    "float16 overflow",
    "non-finite loss",
    "sudden non-finite loss",
    "undefined derivative",
}
# Causes that are reported, at most.
MAX_CAUSES = 3

SATURATING = ("sigmoid", "tanh", "hard_sigmoid", "softsign")
UNBOUNDED = ("exponential",)


def causes(summary, symptoms):
    """Returns the causes of the symptoms, a list of `Finding`, most certain first."""
    kinds = {finding.kind for finding in symptoms}
    if not kinds or kinds <= {"settings", "structure", "data", "labels"}:
        return []
    wrong = certain(summary)
    if wrong or kinds <= NAMED:
        return wrong[:MAX_CAUSES]
    if kinds == {"spikes"}:
        return [_spikes(summary, kinds)]
    if "large first loss" in kinds:
        return [large_inputs(summary)]
    if "learns poorly" in kinds:
        return reasons(summary)[:MAX_CAUSES]
    unusual = [
        strong_penalty(summary),
        _small_rate(summary, kinds),
        narrow(summary),
        *doubtful_data(summary),
        *doubts(summary),
    ]
    if kinds & STUCK and (unusual := [f for f in unusual if f]):
        scales = [large_inputs(summary), large_targets(summary)]
        return [*(f for f in scales if f), *unusual][:MAX_CAUSES]
    found = [
        finding
        for rule in (
            _raised,
            _saturated,
            _biases,
            _recurrent,
            _inputs,
            _activation,
            _targets,
            _initializer,
        )
        if (finding := rule(summary, kinds))
    ]
    if not found:
        found = [f for f in [_rate(summary, kinds)] if f]
    # Outliers are no cause of their own where something else explains them.
    found = found or [f for f in [_spikes(summary, kinds)] if f]
    return found[:MAX_CAUSES]


def clip(summary):
    """Returns a limit for the global norm from the run's healthy steps, or None."""
    # The steps of a dead network are not healthy.
    if sum(summary.levels.values()) < ENOUGH_NORMS or "collapse" in summary.kinds:
        return None
    return summary.quantile(CLIP_QUANTILE)


def _activation(summary, kinds):
    activations = summary.model.get("activations", {})
    if "non-finite at the start" in kinds:
        named = [a for a in activations if a in UNBOUNDED]
        if named:
            return Finding(
                "activation",
                f"{_layers(activations[named[0]])} `{named[0]}`, so the outputs "
                "overflow after a few layers",
                "Use `relu` or `softplus` instead.",
                f"`{named[0]}` grows without bound",
            )
    named = [a for a in activations if a in SATURATING]
    if "vanishing" in kinds and named and not _initializer(summary, kinds):
        return Finding(
            "activation",
            f"{_layers(activations[named[0]])} `{named[0]}`, whose derivative is "
            + (
                "at most 0.25"
                if "sigmoid" in named[0]
                else "close to 0 for large inputs"
            ),
            "Use `relu` with `he_normal` weights in the hidden layers.",
            f"{_layers(activations[named[0]])} `{named[0]}`",
        )
    return None


def _biases(summary, kinds):
    bias = summary.model.get("bias", 0.0)
    if not kinds & STUCK or not bias < LOW_BIAS:
        return None
    return Finding(
        "initializer",
        f"a layer starts with biases of {bias:g}: its units are off for most inputs",
        'Start with biases of 0 (`bias_initializer="zeros"`).',
        f"the initial biases are {bias:g}",
    )


def _raised(summary, kinds):
    """Finds a learning rate that rose by `RISE` or more before the first event."""
    raised, event = summary.raised, summary.first_event
    if "explosion" not in kinds or event is None or not raised:
        return None
    if raised["times"] < RISE or not 0 <= event["step"] - raised["step"] <= SOON:
        return None
    low, high = raised["before"], raised["after"]
    return Finding(
        "rate",
        f"the learning rate rose from {low:.3g} to {high:.3g} at step "
        f"{raised['step']}, and the first event is at step {event['step']}",
        f"Stay at a learning rate of {low:.3g}, or raise it in smaller steps.",
        f"the learning rate rose from {low:.3g} to {high:.3g}",
    )


def _saturated(summary, kinds):
    """Finds updates that saturated units, or switched them off, or returns None."""
    vanished = "vanishing" in kinds & set(summary.kinds) and arrived_at_first(summary)
    event = summary.first_event
    collapsed = event is not None and event["kind"] == "collapse"
    if not (vanished or collapsed):
        return None
    return _large_rate(summary, SATURATES)


def _recurrent(summary, kinds):
    grows = kinds & {"explosion", "non-finite at the start", *STUCK}
    return unbounded_recurrent(summary) if grows else None


def _inputs(summary, kinds):
    if not kinds & {"non-finite at the start", "explosion", "vanishing", *STUCK}:
        return None
    if (measured := large_inputs(summary)) is not None:
        return measured
    if summary.data["inputs"]:
        return None  # they were examined, and are not large
    first = next(iter(kernels(summary)), None)
    if first is None or first.inputs is None or not first.inputs > LARGE_INPUTS:
        return None
    return Finding(
        "inputs",
        f"the inputs of {first.name} are large: about {first.inputs:.2g} each, "
        "estimated from the gradients of the first step",
        scale_inputs(first.inputs),
        f"the inputs are large (about {first.inputs:.2g} each)",
    )


def _targets(summary, kinds):
    stuck = kinds & {"explosion", "not learning"}
    if not stuck or not summary.model.get("regression"):
        return None
    last = next(reversed(kernels(summary)), None)
    if last is None or not last.inputs or last.gain is None or not summary.early:
        return None
    loss = (summary.model.get("loss") or "").lower()
    squared = "squared" in loss or "mse" in loss
    size = math.sqrt(abs(summary.early[0])) if squared else abs(summary.early[0])
    outputs = last.inputs * last.gain
    if not size > LARGE_TARGETS * max(1.0, outputs):
        return None
    return Finding(
        "targets",
        f"the first loss is {summary.early[0]:.3g}, an error of about {size:.2g} per "
        f"target, but the model's outputs are only about {outputs:.2g}: the targets "
        "are large",
        scale_targets(size),
        f"the targets are large (about {size:.2g} each)",
    )


def _initializer(summary, kinds):
    known = [k for k in kernels(summary) if k.gain is not None]
    large = [k for k in known if k.gain > _largest_gain(k)]
    small = [k for k in known if k.gain < SMALL_GAIN]
    advice = (
        "Use `he_normal` for relu, `glorot_uniform` for tanh, `orthogonal` with gain 1 "
        "for recurrent weights; or add a normalization layer after each layer."
    )
    if large:
        worst = max(large, key=lambda k: k.gain)
        usual = "orthogonal: 1" if worst.recurrent else "he_normal: 1.4"
        words = f"the weights of {_count(large)} were large at the first step"
        headline = "the initial weights are too large"
    elif len(small) > len(known) / 2 and not acute(summary):
        worst, usual = min(small, key=lambda k: k.gain), "he_normal: 1.4"
        words = f"the weights of {_count(small)} were small at the first step"
        headline = "the initial weights are too small"
    else:
        every = [_shrinks(n, kinds, advice) for n in networks(summary)]
        return next(filter(None, every), None)
    words += f": √fan_in · std is {worst.gain:.2g} in {worst.name} ({usual})"
    return Finding("initializer", words, advice, headline)


def _shrinks(network, kinds, advice):
    known = [k for k in network if k.gain is not None and k.inputs]
    if len(known) < 2 or not kinds & {"vanishing", "dead units", "not learning"}:
        return None
    first, last = known[0], known[-1]
    if not last.inputs < SHRUNK * first.inputs:
        return None
    return Finding(
        "initializer",
        f"activations shrink through the network: at the first step, inputs are about "
        f"{first.inputs:.2g} at {first.name} and {last.inputs:.2g} at {last.name} "
        f"({len(known)} layers whose √fan_in · std is about {known[1].gain:.2g})",
        advice,
        "the initial weights are too small for so many layers",
    )


def _rate(summary, kinds):
    # An outlier of the norm or the loss points to its batch; what follows from an
    # update points to the learning rate.
    if (momentum := high_momentum(summary)) is not None:
        return momentum
    if "explosion" not in kinds and kinds & {"not learning", "dead units"}:
        found = _small_rate(summary, kinds) or _large_rate(summary)
        if found or "not learning" in kinds:
            return found
    diverged = "explosion" in kinds and bool(summary.first_bad)
    if not diverged and not {"update", "oscillation"} & set(summary.kinds):
        return None
    known = [k for k in kernels(summary) if k.inputs is not None and k.gain is not None]
    usual = ""
    rate = _rate_of_event(summary)
    if known:
        usual = (
            f"; inputs (about {known[0].inputs:.2g} each) and weights (√fan_in · std "
            f"{known[0].gain:.2g}) of {known[0].name} are normal"
        )
    return Finding(
        "rate",
        "the learning rate is too high" + usual,
        f"Lower the learning rate from {rate:.3g} to about "
        f"{_lower_rate(summary):.1g}, or use a warm-up.",
        f"the learning rate of {rate:.3g} is too high",
    )


def _large_rate(summary, least=FAST):
    """Finds a learning rate whose updates replaced the weights, or returns None."""
    largest = largest_update(summary)
    if not largest > least:
        return None
    rate = summary.top_rate
    lower = max(TRUSTED / largest, LEAST_FACTOR) * rate
    return Finding(
        "rate",
        f"the learning rate is too high: at {rate:.3g} the largest update of a kernel "
        f"was {largest:.2g} times the norm of its weights (0.001 to 0.01 is typical)",
        f"Lower the learning rate from {rate:.3g} to about {lower:.1g}.",
        f"the learning rate of {rate:.3g} is too high",
    )


def _small_rate(summary, kinds):
    """Finds a learning rate that is too low for the run to learn, or returns None."""
    largest = largest_update(summary)
    if "not learning" not in kinds or not 0 < largest < SLOW:
        return None
    if largest * summary.steps > MOVED:
        return None  # so many updates can replace half of a kernel
    rate, times = summary.top_rate, min(TRUSTED / 10 / largest, 1e3)
    return Finding(
        "low rate",
        f"the learning rate is too low: at {rate:.3g} the largest update of a kernel "
        f"was {largest:.2g} times the norm of its weights (0.001 to 0.01 is typical)",
        f"Raise the learning rate from {rate:.3g} to about {times * rate:.1g}.",
        f"the learning rate of {rate:.3g} is too low",
    )


def _lower_rate(summary):
    """Returns the learning rate at which the first harmful update would be `TRUSTED`.

    An update is proportional to it. A tenth of the current one if its size is unknown.
    """
    update = summary.kinds.get("update", {"first": {"value": None}})["first"]["value"]
    factor = 0.1
    if isinstance(update, float) and 0 < update < math.inf:
        factor = min(max(TRUSTED / update, LEAST_FACTOR), 0.5)
    return factor * _rate_of_event(summary)


def _rate_of_event(summary):
    """Returns the learning rate of the first event's step, or else the first one."""
    rate = summary.event_rate
    return rate if rate > 0 else summary.rates[0]


def _spikes(summary, kinds):
    others = ("nonfinite", "update", "collapse")
    spikes = [k for k in acute(summary) if k not in others]
    limit = clip(summary)
    if not spikes or not kinds & {"explosion", "spikes"}:
        return None
    advice = "Look at the batches of these steps for outliers"
    if limit is not None:
        advice += (
            f"; clip with global_clipnorm={limit:.2g} ({CLIP_QUANTILE:.0%} of the "
            "healthy steps stay below it)"
        )
    if (
        summary.model.get("regression")
        and "huber" not in (summary.model.get("loss") or "").lower()
    ):
        advice += "; use a Huber loss if the targets have outliers"
    words = "a few steps are outliers"
    return Finding("spikes", words, f"{advice}.", words)


def _largest_gain(kernel):
    return LARGE_RECURRENT_GAIN if kernel.recurrent else LARGE_GAIN


def _layers(count):
    return "1 layer uses" if count == 1 else f"{count} layers use"


def _count(named):
    return "one kernel" if len(named) == 1 else f"{len(named)} kernels"
