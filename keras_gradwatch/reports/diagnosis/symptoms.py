"""Finds the symptoms of a run by pure functions of its summary."""

import math
import statistics

from keras_gradwatch.records.events import DATA_ORDER, NEW_DATA
from keras_gradwatch.reports.diagnosis import broken
from keras_gradwatch.reports.diagnosis.data import (
    certain,
    constant_answer,
    constant_inputs,
    constant_targets,
    guessing,
    has_soft_targets,
    large_inputs,
    uncertainty,
)
from keras_gradwatch.reports.diagnosis.finding import Finding
from keras_gradwatch.reports.diagnosis.kernels import networks
from keras_gradwatch.reports.diagnosis.penalty import outweighed
from keras_gradwatch.reports.diagnosis.poor import poor

# Kinds of events about a state of the model, not about a step that went wrong.
STATES = ("vanishing", "dead units", "oscillation")
# Symptoms from which dead units and vanishing gradients follow.
DECISIVE = {"no gradient", "non-finite at the start", "undefined derivative"}
# First kernel's gradient over the last one's: AutoTrainer's sign of an explosion.
GROWTH = 70.0
# Fraction of the steps, and number, up to which spikes are no explosion; times the
# baseline up to which they are not named at all. A lasting shift has `patience` = 5.
RARE, FEW, MILD = 0.01, 4, 100.0
# What `GradWatch` only does about more than a few spikes.
SERIOUS = {"reverted", "rate reduced", "rewound", "stopped"}
# How much lower than a spike the norm or the loss is at the end of a run that goes on.
BACK = 3.0
# A norm below this is no explosion by itself.
LARGE_NORM = 1.0
# First kernel's gradient over the last one's, and kernels, of one that vanishes.
VANISHED, DEEP = 1e-3, 4
# A norm up to this is 0 up to rounding, in a run that does not learn.
ROUNDING = 1e-6
# Losses below which a run is called one that learns, as a fraction of the first ones.
LEARNED = 0.97
# A loss has not fallen if its fall, with so many standard errors added, is less than
# this fraction of it.
LITTLE, ERRORS = 0.1, 2.0
OVERFIT = (
    "Try a learning rate 10x higher and 10x lower, try another seed, and check that "
    "the model can overfit a single batch."
)
REVIVE = (
    "Restart training (dead units stay dead), with LeakyReLU, ELU or GELU instead of "
    "ReLU, or with a normalization before each activation."
)
# Fewest losses that show it.
ENOUGH_LOSSES = 100
# Fewest steps after which a model should be better than a constant answer.
ENOUGH_STEPS = 150
# A loss below this fraction of the first one, or of that of a constant prediction, is a
# good one.
GOOD = 0.2
# Kinds of events whose message says more than their numbers.
LASTING = ("collapse", "divergence")
# Fractions of a constant prediction's loss: a regression whose latest loss is below
# `KNOWN`, or a classifier whose first loss is below `BELOW`, had learned before.
KNOWN, BELOW = 0.5, 0.85
# Relative noise of a loss that stands still.
STILL = 1e-3
# A first loss that is this many times that of guessing is far above it.
FAR = 10.0


def symptoms(summary):
    """Returns the problems of a run, the most severe first; empty for a healthy run."""
    rules = (
        _non_finite_start,
        broken.undefined_derivative,
        broken.overflow,
        broken.sudden,
        _explosion,
        _shift,
        _spikes,
        _bad_batches,
        _no_gradient,
        _dead_network,
        _dead_units,
        _vanishing,
        _oscillation,
    )
    found = [finding for rule in rules if (finding := rule(summary))]
    decisive = any(finding.kind in DECISIVE for finding in found)
    penalty = outweighed(summary)
    # Units that are off for equal inputs may be on for others; and weights that a
    # regularizer has shrunk pass no gradient on.
    if decisive or penalty or constant_inputs(summary):
        found = [f for f in found if f.kind not in ("dead units", "vanishing")]
    # What does not learn for a reason that has a name is not named twice.
    found = found or [f for f in [penalty] if f]
    found = found or [f for f in [_vanishing_by_ratio(summary)] if f]
    found = found or [f for f in [_not_learning(summary)] if f]
    found = found or [f for f in [_guesses(summary)] if f]
    found = found or [f for f in [_large_first_loss(summary)] if f]
    found = found or [f for f in [poor(summary)] if f]
    found = found or [f for f in [constant_targets(summary)] if f]
    # A large gradient at the first step is no harm in a healthy run.
    steep = _grows_backwards(summary) if found else None
    if found:
        return ([steep] if steep else []) + found
    # A model may learn in spite of these.
    return certain(summary)


def acute(summary):
    """Returns the kinds of events of steps that went wrong."""
    states = (*STATES, "collapse") if _dead_network(summary) else STATES
    return [kind for kind in summary.kinds if kind not in states]


def _non_finite_start(summary):
    bad = summary.first_bad
    if not bad or bad["step"] != summary.first_step or broken.rare(summary):
        return None
    words, advice = broken.forward(summary)
    if not bad["variables"]:
        return Finding(
            "non-finite loss",
            f"the loss is {bad['loss']:g}, but all gradients are finite"
            + (
                words
                or ": probably a term of the loss or a regularizer takes the "
                "logarithm of a negative number, or divides 0 by 0"
            ),
            advice
            or "Check the terms of the loss, and keep the arguments of logarithms and "
            "divisions positive (`ops.maximum(x, 1e-7)`).",
            "The loss is not finite, but all gradients are",
        )
    if math.isfinite(bad["loss"]):
        if not broken.of_inputs(summary):
            return None  # an undefined derivative
        return Finding(
            "non-finite at the start",
            "at the first step the loss and the gradient of the first layer's bias are "
            "finite, but the gradient of its kernel is not: the inputs contain NaN or "
            "infinite values",
            "Remove or fill the non-finite values of the inputs (`np.nan_to_num`).",
            "The gradients are not finite from the first step on",
        )
    return Finding(
        "non-finite at the start",
        "the loss of the very first step is not finite, before any update was made, so "
        "neither a lower learning rate nor clipping can help"
        + (
            words
            or "; the forward pass overflows or divides by zero with these weights "
            "and inputs"
        ),
        advice
        or "Look for a division by 0, a logarithm of 0 or a power in the layers and "
        "the loss, and keep their arguments away from 0 (`x / (y + 1e-7)`).",
        headline="The loss is not finite from the first step on",
    )


def _explosion(summary):
    bad = summary.first_bad
    if bad and not broken.rare(summary) and not broken.grew(summary):
        return None
    usual, words = summary.quantile(0.5), []
    if "update" in summary.kinds:
        first = summary.kinds["update"]["first"]
        words.append(
            f"an update of {first['variable']} was {first['value']:.3g} times the norm "
            f"of its weights (seen in step {first['step']})"
        )
    spikes = [k for k in acute(summary) if k not in ("nonfinite", "update")]
    few = _are_few(spikes, summary) or _are_small(spikes, summary)
    if not words and (_shift(summary) or few):
        spikes = []
    if spikes:
        first = min((summary.kinds[k]["first"] for k in spikes), key=_step)
        if first["kind"] in LASTING:
            words.append(first["message"].split("; ")[0])
        else:
            words.append(
                f"{first['kind']} at step {first['step']} (value {first['value']:.3g}, "
                f"baseline {first['baseline']:.3g})"
            )
    before = bad.get("before")
    if before is not None and not broken.rare(summary):
        words.append(
            f"the gradient norm was {summary.norm['first']:.3g} at the first step and "
            f"{before:.3g} just before the first non-finite values (step {bad['step']})"
        )
    if not words:
        return None
    if usual:
        words.append(f"the median gradient norm of the healthy steps is {usual:.3g}")
    causes = [summary.kinds[kind]["first"] for kind in acute(summary)]
    first = min(causes, key=_step, default={**bad, "variable": None})
    where = f" in {first['variable']}" if first["variable"] else ""
    what = "Collapsed" if first["kind"] == "collapse" else "Exploded"
    headline = f"{what} at step {first['step']}{where}"
    return Finding("explosion", "; ".join(words), headline=headline)


def _shift(summary):
    """Finds a loss that is on another scale since some step, whatever the weights."""
    event = summary.kinds.get("divergence", {}).get("last")
    cause = event["cause"] if event else None
    if cause == DATA_ORDER:
        return Finding(
            "shift",
            f"the loss rose to {event['value']:.3g}, from {event['baseline']:.3g}, and "
            f"fell again at the start of the next epoch (step {event['step']}): the "
            "samples come in a fixed order, and the last ones are the hardest",
            "Shuffle the data, unless their order matters.",
            "The last samples of an epoch are much harder than the first",
        )
    if cause != NEW_DATA:
        return None  # an observer cannot tell
    return Finding(
        "shift",
        f"by step {event['step']} the loss had risen to {event['value']:.3g}, from "
        f"{event['baseline']:.3g}, and it does not come down with earlier weights "
        "either: the data or the loss function must have changed",
        "Check what changed before that step. If the change was intended, nothing has "
        "to be done.",
        f"The scale of the loss changed before step {event['step']}",
    )


def _spikes(summary):
    """Finds a few large spikes in a run that goes on as before."""
    kinds = [k for k in acute(summary) if k != "nonfinite"]
    if not kinds or not _are_few(kinds, summary) or _are_mild(kinds, summary):
        return None
    if summary.first_bad and not broken.rare(summary):
        return None
    first = min((summary.kinds[k]["first"] for k in kinds), key=_step)
    count = summary.kinds[first["kind"]]["count"]
    return Finding(
        "spikes",
        f"{first['kind']} at step {first['step']} (value {first['value']:.3g}, "
        f"baseline {first['baseline']:.3g}), {count} of this kind in {summary.steps} "
        "steps; the run continues as before",
        headline=f"{count} of {summary.steps} steps had a {first['kind']}; the first "
        f"was step {first['step']}",
    )


def _are_few(kinds, summary):
    """Returns whether all events are rare spikes, after which the run is as before."""
    if SERIOUS & {*summary.actions} or not _are_rare(kinds, summary, FEW):
        return False
    now = {"norm spike": summary.norm.get("last", 0.0)}
    if summary.recent:
        now["loss spike"] = abs(summary.losses()[1])
    last = [
        (now.get(kind, 0.0), summary.kinds[kind]["last"]["value"]) for kind in kinds
    ]
    return all(BACK * value < spike for value, spike in last)


def _are_small(kinds, summary):
    """Returns whether all events are rare and small spikes, which do no harm."""
    return _are_rare(kinds, summary, 1) and _are_mild(kinds, summary)


def _are_rare(kinds, summary, few):
    most = max(few, RARE * summary.steps)
    counts = [summary.kinds[kind]["count"] for kind in kinds]
    return all(k.endswith("spike") for k in kinds) and max(counts, default=0) <= most


def _are_mild(kinds, summary):
    """Returns whether these spikes are small enough to do no harm."""
    events = [summary.kinds[k][which] for k in kinds for which in ("first", "last")]
    return all(event["value"] < MILD * event["baseline"] for event in events)


def _grows_backwards(summary):
    for network in networks(summary):
        ends = _ends(network, "norm_first")
        if ends and ends[0][1] > max(GROWTH * ends[1][1], LARGE_NORM):
            return _growth(*ends)
    return None


def _growth(first, last):
    (first, a), (_, b) = first, last
    return Finding(
        "explosion at the first step",
        f"at the first step the gradient grows {a / b:.3g}-fold in the backward pass: "
        f"from {b:.3g} in the last kernel to {a:.3g} in {first}",
        headline="Gradients grow in the backward pass",
    )


def _bad_batches(summary):
    derived = broken.undefined_derivative(summary) or broken.overflow(summary)
    if not broken.rare(summary) or derived:
        return None
    count, first = summary.outcomes["nonfinite"], summary.kinds["nonfinite"]["first"]
    words, advice = broken.forward(summary)
    return Finding(
        "bad batches",
        f"{count} of {summary.steps} steps (the first is step {first['step']}) "
        f"{'has' if count == 1 else 'have'} non-finite values, but the steps around "
        f"{'it' if count == 1 else 'them'} are finite{words}",
        advice
        or "Check the data (`np.isfinite(x).all()`, and the same for the targets), "
        "then divisions and logarithms in the loss.",
        f"{count} of {summary.steps} steps had non-finite values; the first was step "
        f"{first['step']}",
    )


def _no_gradient(summary):
    if summary.model.get("trainable") == 0 and summary.steps:
        return Finding(
            "no gradient",
            "no variable of the model is trainable: all layers are frozen",
            "Set `layer.trainable = True` for the layers that are to learn, and "
            "compile again.",
            "No variable is trainable",
        )
    known = [n for n in summary.variables.values() if "norm_largest" in n]
    if summary.first_bad and not broken.rare(summary):
        return None
    if summary.steps < 2 or not known:
        return None
    largest = max(n["norm_largest"] for n in known)
    # The derivative of an output that is always 1 may be 0 up to rounding.
    if largest > ROUNDING or (largest and _learns(summary)):
        return None
    zero = f"below {ROUNDING:g}" if largest else "exactly 0"
    return Finding(
        "no gradient",
        f"every gradient is {zero} from the first step on: the output, "
        "the loss, or the inputs do not depend on the weights",
        "Check whether the model's output is constant, whether the loss depends on it, "
        "and whether all inputs are 0.",
        "No gradient reaches any kernel",
    )


def _dead_network(summary):
    """Finds a network that gets no gradient while others train, or returns None."""
    event = summary.kinds.get("collapse", {}).get("first")
    if not event or event["action"] != "observed" or not summary.model.get("networks"):
        return None
    what = event["message"].split("; ")[0]
    return Finding(
        "dead units",
        f"{what}: its units are off for every input, or nearly every one",
        REVIVE,
        f"One of {len(summary.model['networks'])} networks has died ({what})",
    )


def _dead_units(summary):
    vectors = [
        (name, numbers["zeros_last"], math.prod(shape))
        for name, shape in summary.model.get("shapes", {}).items()
        if len(shape) == 1
        and "zeros_last" in (numbers := summary.variables.get(name, {}))
    ]
    vectors, last = vectors[:-1], vectors[-1:]
    size = sum(n for _, _, n in vectors)
    share = sum(zeros * n for _, zeros, n in vectors) / size if size else 0.0
    dead = [name for name, zeros, _ in vectors if zeros >= 1]
    told = "dead units" in summary.kinds
    if not told and not (share > 0.7 and dead and not _learns(summary)):
        return None
    if not told and last and last[0][1] >= 1:
        return None  # nothing at all was to be learned from that batch
    since = summary.kinds["dead units"]["first"]["step"] if told else None
    when = f" (since step {since} at the latest)" if told else ""
    noun = "layer gets" if len(dead) == 1 else "layers get"
    layers = f"; {len(dead)} {noun} no gradient at all" if dead else ""
    return Finding(
        "dead units",
        f"{share:.0%} of the units have zero gradient in the latest sample{layers}"
        f"{when}: a unit that is off for every input cannot recover",
        REVIVE,
        f"{share:.0%} of the units are dead",
    )


def _vanishing(summary):
    if "vanishing" not in summary.kinds:
        return None
    event = summary.kinds["vanishing"]["last"]
    norm = summary.norm.get("last", float("nan"))
    early = "; at the first step the gradient did reach it"
    early = early if arrived_at_first(summary) else ""
    return Finding(
        "vanishing",
        f"the gradient does not reach {event['variable']}: the norm is "
        f"{event['value']:.3g} there and {event['baseline']:.3g} in the last kernel "
        f"(step {event['step']}), although the global norm of {norm:.3g} looks normal"
        + early,
        "Use fewer layers, or add a normalization after each of them, or residual "
        "connections.",
        f"Gradients vanish: they do not reach {event['variable']}",
    )


def arrived_at_first(summary):
    """Returns whether a gradient that has vanished did arrive at the first step."""
    name = summary.kinds["vanishing"]["last"]["variable"]
    own = [n for n in networks(summary) if name in [k.name for k in n]]
    begin = _ends(own[0], "norm_first") if own else None
    return bool(begin and begin[0][1] > 0 and begin[0][1] >= VANISHED * begin[1][1])


def _vanishing_by_ratio(summary):
    """Finds a gradient that vanishes in a network whose global norm is not small."""
    for network in [] if _learns(summary) else networks(summary):
        ends = _ends(network, "norm_first"), _ends(network, "norm_last")
        known = None not in ends and len(network) >= DEEP
        if known and all(first[1] < VANISHED * last[1] for first, last in ends):
            return _vanished(*ends[1])
    return None


def _vanished(first, last):
    (name, first), (_, last) = first, last
    return Finding(
        "vanishing",
        f"the gradient does not reach {name}: the norm is {first:.3g} there and "
        f"{last:.3g} in the last kernel, and the loss does not fall",
        "Use fewer layers, or add a normalization after each of them, or residual "
        "connections.",
        f"Gradients vanish: they do not reach {name}",
    )


def _oscillation(summary):
    if "oscillation" not in summary.kinds:
        return None
    event = summary.kinds["oscillation"]["last"]
    return Finding(
        "oscillation",
        f"from step {event['step']} on the loss swings by {event['value']:.3g} from "
        f"step to step, around {event['baseline']:.3g}",
        "Halve the learning rate until it stops.",
        f"The loss oscillates from step {event['step']} on",
    )


def _not_learning(summary):
    known = min(summary.steps, len(summary.recent) + len(summary.early))
    if known < ENOUGH_LOSSES or _learns(summary) or summary.warms_up:
        return None
    # What is easy is learned in a few steps.
    reached, first = summary.reached(), summary.first_loss()
    if first > 0 and reached < GOOD * first:
        return None
    if reached == 0 and max(summary.early) > 0:
        return None
    if not summary.is_comparable or _knows(summary) or has_soft_targets(summary):
        return None
    early, recent = summary.losses()
    size = abs(early) or 1.0
    noise, fall = summary.noise() / size, (early - reached) / size
    # A loss of the user's own need not fall; one that stands still shows that nothing
    # is learned.
    known = _has_known_loss(summary)
    if fall + ERRORS * noise > LITTLE if known else noise > STILL:
        return None
    return Finding(
        "not learning",
        f"the loss has not fallen: {early:.4g} in the first steps, {recent:.4g} in the "
        "latest ones",
        OVERFIT,
        f"The loss has not fallen in {summary.steps} steps",
    )


def _guesses(summary):
    """Finds a loss that is no better than that of the best constant prediction."""
    constant = guessing(summary)
    if not constant or summary.steps < ENOUGH_STEPS or not summary.recent:
        return None
    recent = summary.reached()
    likely = constant + uncertainty(summary)
    if not recent > LEARNED * likely or summary.warms_up:
        return None
    return Finding(
        "not learning",
        f"the loss is {recent:.4g} in the latest steps; always predicting the same "
        f"value would give {constant:.4g}",
        OVERFIT,
        "The model is no better than a constant prediction after "
        f"{summary.steps} steps",
    )


def _large_first_loss(summary):
    """Finds a first loss far above that of guessing, because the inputs are large."""
    constant = guessing(summary)
    if not constant or not summary.early or large_inputs(summary) is None:
        return None
    _, recent = summary.losses()
    if not summary.early[0] > FAR * constant or recent < GOOD * constant:
        return None
    return Finding(
        "large first loss",
        f"the first loss is {summary.early[0]:.3g}; always predicting the same value "
        f"would give {constant:.3g}",
        headline=f"The first loss is {summary.early[0] / constant:.2g} times that of a "
        "constant prediction",
    )


def _learns(summary):
    if not summary.early:
        return False
    early, _ = summary.losses()
    # What weight regularizers add hardly falls.
    size = abs(early) - summary.model.get("penalty", 0.0)
    return early - summary.reached() > (1 - LEARNED) * max(size, 0.0)


def _knows(summary):
    """Returns whether the model had learned before, such as one that is fine-tuned."""
    early, recent = summary.losses()
    if summary.fits > 1 and recent < LEARNED * statistics.median(summary.early):
        return True
    constant, trained = constant_answer(summary), bool(summary.model.get("trained"))
    if not constant:
        return trained
    if summary.model["heads"][0]["family"] == "regression":
        return trained or recent < KNOWN * constant
    kept = max(early, summary.reached()) < BELOW * constant  # better than guessing
    return kept or summary.first_loss() < BELOW * constant


def _has_known_loss(summary):
    """Returns whether an output has a loss of Keras's that training brings down."""
    families = [head["family"] for head in summary.model.get("heads", [])]
    return any([*families, summary.model.get("family")])


def _ends(network, key):
    """Returns `((name, value) of the first kernel, of the last)`, or None."""
    found = [(k.name, k.numbers[key]) for k in network if key in k.numbers]
    return (found[0], found[-1]) if len(found) > 1 else None


def _step(event):
    return event["step"]
