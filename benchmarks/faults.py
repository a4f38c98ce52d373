"""Faults that are injected into healthy programs, and what a report must say of them.

The faults of `"dev"` and of `"test"` differ in size.
"""

from dataclasses import dataclass

import fault_data as data
from fault_programs import BASES, VARIANTS, scalable


@dataclass(frozen=True)
class Fault:
    """What is wrong, and what a report must say of it.

    Attributes:
        label: What kind of fault it is.
        name: What it is.
        fits: Predicate of a program that it can be injected into.
        inject: Function of a program and a size to the faulty one.
        sizes: How large it is in `"dev"` and in `"test"`.
        cause: Pattern of a cause that names it.
        fix: Pattern of an advice that repairs it.
    """

    label: str
    name: str
    fits: object
    inject: object
    cause: str
    fix: str
    sizes: tuple = (None, None)


def _edit(**edits):
    return lambda program, size: program.replace(
        **{key: size if value is SIZE else value for key, value in edits.items()}
    )


def _change(name):
    return lambda program, size: program.replace(
        changes=(*program.changes, (name, size))
    )


SIZE = object()
DENSE = ("mlp", "pair", "words")


def _task(*tasks, bodies=()):
    return lambda p: p.task in tasks and (not bodies or p.body in bodies)


def _body(*bodies):
    return lambda p: p.body in bodies


def _nonlinear(p):
    """Programs that a linear model cannot learn."""
    return p.data in (
        data.circles,
        data.rings,
        data.products,
        data.moons,
        data.near,
        data.visits,
    )


def _rate(program, size):
    """A rate that is `size` times as high; Adam divides by the gradient's size."""
    adaptive = program.optimizer != "SGD"
    return program.replace(rate=program.rate * (size if adaptive else 10 * size))


def _deep(program, size):
    activation, depth = size
    init = ("glorot_uniform", ())
    return program.replace(
        activation=activation, depth=depth, width=16, init=init, normalized=False
    )


def _float16(program, size):
    changed = _change("targets scaled")(program, size)
    return changed.replace(dtype="float16")


SETTINGS = r"last layer|`dense"
FAULTS = [
    Fault(
        "explosion",
        "rate too high",
        lambda p: True,
        _rate,
        r"rate.* is too high",
        r"Lower the learning rate",
        (100, 200),
    ),
    Fault(
        "explosion",
        "initial weights of N(0, s)",
        _body("mlp", "cnn", "pair"),
        lambda p, s: p.replace(
            init=("RandomNormal", (("stddev", s),)),
            depth=p.depth + 3 * (p.body != "cnn"),
            width=64,
            normalized=False,
        ),
        r"weights of .* were large",
        r"he_normal",
        (1.0, 0.7),
    ),
    Fault(
        "explosion",
        "recurrent gain",
        _body("rnn"),
        _edit(recurrent_gain=SIZE),
        r"weights of .* were large",
        r"orthogonal",
        (2.0, 2.5),
    ),
    Fault(
        "last layer",
        "softmax over one unit",
        _task("binary"),
        _edit(last="softmax"),
        "softmax over one unit",
        "sigmoid",
    ),
    Fault(
        "last layer",
        "softmax over one unit, MSE",
        _task("regression"),
        _edit(last="softmax"),
        "softmax over one unit|softmax, and",
        "[Rr]emove the activation",
    ),
    Fault(
        "last layer",
        "relu before crossentropy",
        _task("classes"),
        _edit(last="relu"),
        "activation relu",
        "softmax|from_logits",
    ),
    Fault(
        "last layer",
        "no softmax",
        _task("classes"),
        _edit(last="linear"),
        "no softmax",
        "from_logits=True|softmax",
    ),
    Fault(
        "last layer",
        "no sigmoid",
        _task("binary"),
        _edit(last="linear"),
        "no sigmoid",
        "from_logits=True|sigmoid",
    ),
    Fault(
        "last layer",
        "tanh before crossentropy",
        _task("binary"),
        _edit(last="tanh"),
        "activation tanh",
        "sigmoid",
    ),
    Fault(
        "last layer",
        "relu before binary crossentropy",
        _task("binary"),
        _edit(last="relu"),
        "activation relu",
        "sigmoid",
    ),
    Fault(
        "last layer",
        "MSE for class numbers",
        _task("classes"),
        _edit(loss="mse", units=1, last="linear"),
        "class|label",
        "[Cc]rossentropy",
    ),
    Fault(
        "last layer",
        "sigmoid and MSE for class numbers",
        _task("classes"),
        _edit(loss="mse", units=1, last="sigmoid"),
        "class|label|activation sigmoid",
        "[Cc]rossentropy|Remove the activation",
    ),
    Fault(
        "last layer",
        "softmax twice",
        _task("classes"),
        _edit(from_logits=True),
        "applies another one",
        "Remove the activation|from_logits",
    ),
    Fault(
        "last layer",
        "sigmoid for a regression",
        _task("regression"),
        _edit(last="sigmoid"),
        "activation sigmoid",
        "Remove the activation",
    ),
    Fault(
        "last layer",
        "relu for a regression",
        _task("regression"),
        _edit(last="relu"),
        "activation relu",
        "Remove the activation",
    ),
    Fault(
        "last layer",
        "tanh for large targets",
        _task("regression"),
        lambda p, s: _change("targets scaled")(p, s).replace(last="tanh"),
        "activation tanh|targets are large",
        "Remove the activation|Scale the targets",
        (3.0, 5.0),
    ),
    Fault(
        "last layer",
        "MAPE with zeros",
        _task("regression"),
        lambda p, s: _change("targets with zeros")(p, s).replace(loss="mape"),
        "divides by them",
        "mean_absolute_error",
    ),
    Fault(
        "last layer",
        "logarithm of negatives",
        _task("regression"),
        _edit(loss=SIZE),
        "logarithm|no negative ones|from 0 on",
        "softplus|mse",
        ("msle", "poisson"),
    ),
    Fault(
        "inputs",
        "inputs × s",
        scalable,
        _change("inputs scaled"),
        "inputs are large|inputs.* large",
        "Scale the inputs",
        (255.0, 1000.0),
    ),
    Fault(
        "inputs",
        "inputs × large s",
        scalable,
        _change("inputs scaled"),
        "inputs are large|inputs.* large",
        "Scale the inputs",
        (1e4, 5e4),
    ),
    Fault(
        "inputs",
        "one huge column",
        lambda p: scalable(p) and p.body != "cnn",
        _change("huge column"),
        "inputs.* large|column 0 of the inputs",
        "Scale the inputs",
        (5e4, 5e5),
    ),
    Fault(
        "inputs",
        "inputs far from 0",
        scalable,
        _change("inputs shifted"),
        "inputs.* large|inputs.* far from 0",
        "Scale the inputs",
        (200.0, 500.0),
    ),
    Fault(
        "targets",
        "targets × s",
        _task("regression"),
        _change("targets scaled"),
        "targets.* large",
        "Scale the targets",
        (100.0, 1000.0),
    ),
    Fault(
        "labels",
        "labels from 1",
        _task("classes"),
        _change("labels shifted"),
        "labels are from",
        "Number the classes from 0",
        (1, 1),
    ),
    Fault(
        "labels",
        "labels -1 and 1",
        _task("binary"),
        _change("labels ±1"),
        "targets are from -1",
        "Encode the labels",
    ),
    Fault(
        "data",
        "a column is NaN",
        _body("mlp", "pair", "lstm", "gru"),
        _change("NaN column"),
        "of the inputs.* NaN|inputs.* not finite",
        "Remove or fill",
        (0, 0),
    ),
    Fault(
        "data",
        "rows are NaN",
        _body("mlp", "cnn", "pair"),
        _change("NaN rows"),
        "inputs.* not finite|non-finite values",
        "Remove or fill|isfinite",
        (60, 100),
    ),
    Fault(
        "data",
        "one infinite value",
        _body("mlp", "cnn", "pair"),
        _change("infinite value"),
        "inputs.* not finite|non-finite values",
        "Remove or fill|isfinite",
        (7, 200),
    ),
    Fault(
        "data",
        "targets are NaN",
        _task("regression", "counts"),
        _change("NaN targets"),
        "targets.* not finite|non-finite values",
        "Remove or fill|isfinite",
        (10, 7),
    ),
    Fault(
        "data",
        "all inputs equal",
        _body("mlp", "cnn", "lstm", "gru"),
        _change("constant inputs"),
        "all inputs",
        "how the inputs are made",
        (0.0, 1.0),
    ),
    Fault(
        "data",
        "all targets equal",
        _task("classes", "binary", "regression"),
        _change("constant targets"),
        "all targets",
        "how the targets are made",
        (1, 0),
    ),
    Fault(
        "slow",
        "rate too low",
        lambda p: True,
        lambda p, s: p.replace(rate=p.rate * s),
        "rate of .* too low|rate is too low",
        "Raise the learning rate",
        (1e-3, 3e-4),
    ),
    Fault(
        "slow",
        "too few epochs",
        lambda p: True,
        _edit(epochs=SIZE),
        "still falling|too low",
        "epochs|Raise the learning rate",
        (2, 1),
    ),
    Fault(
        "slow",
        "momentum .999",
        lambda p: p.body in ("mlp", "cnn", "pair"),
        lambda p, s: p.replace(optimizer="SGD", momentum=s, rate=0.05),
        "momentum of",
        "momentum",
        (0.999, 0.995),
    ),
    Fault(
        "slow",
        "negative rate",
        lambda p: True,
        lambda p, s: p.replace(rate=-p.rate),
        "rate is negative",
        "Compile with a learning rate of",
    ),
    Fault(
        "slow",
        "dropout",
        lambda p: True,
        _edit(dropout=SIZE),
        "dropout",
        "dropout rate of at most",
        (0.9, 0.95),
    ),
    Fault(
        "structure",
        "no hidden layer",
        _nonlinear,
        _edit(depth=0, normalized=False),
        "no hidden layer|linear",
        "hidden layer",
    ),
    Fault(
        "structure",
        "one unit",
        lambda p: p.task == "classes" and p.body in DENSE,
        _edit(width=1, depth=1),
        "units?.*(few|single|bottleneck|narrow)|narrow",
        "units",
    ),
    Fault(
        "structure",
        "no activation",
        _nonlinear,
        _edit(activation="linear"),
        "without an activation",
        "activation",
    ),
    Fault(
        "structure",
        "everything frozen",
        lambda p: True,
        _edit(frozen=True),
        "frozen|trainable",
        "trainable",
    ),
    Fault(
        "vanishing",
        "many saturating layers",
        _body("mlp"),
        _deep,
        "layers use `(sigmoid|tanh)`|weights .* small|shrink",
        "relu|he_normal|normalization|residual",
        (("sigmoid", 10), ("sigmoid", 12)),
    ),
    Fault(
        "vanishing",
        "small weights, many layers",
        _body("mlp"),
        lambda p, s: p.replace(
            init=("RandomNormal", (("stddev", s),)), depth=8, width=16, normalized=False
        ),
        "weights .* small|shrink",
        "he_normal|normalization",
        (0.02, 0.05),
    ),
    Fault(
        "dead",
        "negative biases",
        _body("mlp", "cnn"),
        lambda p, s: p.replace(bias=s, activation="relu", normalized=False),
        "bias",
        "bias|LeakyReLU|normalization",
        (-10.0, -20.0),
    ),
    Fault(
        "undefined",
        "square root at 0",
        lambda p: p.body in ("mlp", "pair") and not p.normalized,
        _edit(extra="root", activation="relu"),
        "derivative is infinite|square root",
        "square root|small constant",
    ),
    Fault(
        "undefined",
        "norm at 0",
        lambda p: p.body != "rnn",
        _edit(extra="norm"),
        "derivative is infinite|square root",
        "square root|small constant",
    ),
    Fault(
        "undefined",
        "division by 0",
        lambda p: p.body in ("mlp", "words"),
        _edit(extra="division", activation="relu"),
        "divi|`extra`",
        "divi",
    ),
    Fault(
        "undefined",
        "logarithm in a regularizer",
        _body(*DENSE),
        _edit(penalty="log"),
        "logarithm|regularizer",
        "logarithm|regularizer",
    ),
    Fault(
        "float16",
        "a loss beyond float16",
        _task("regression"),
        _float16,
        "float16|targets are large",
        "float32|Scale the targets",
        (300.0, 500.0),
    ),
]

# What a report may call each fault; a cause that is named as a symptom is right, too.
EXPLODED = {
    "spikes",
    "explosion",
    "explosion at the first step",
    "non-finite at the start",
    "sudden non-finite loss",
}
STUCK = {"not learning", "learns poorly", "no gradient", "dead units", "vanishing"}
SYMPTOMS = {
    # A protected run with such weights or rates may only stay poor.
    "explosion": EXPLODED | {"dead units", "not learning", "learns poorly"},
    "last layer": STUCK | EXPLODED | {"non-finite loss"},
    "inputs": EXPLODED | STUCK | {"large first loss", "oscillation"},
    "targets": EXPLODED | STUCK | {"large first loss"},
    "labels": STUCK | EXPLODED,
    "data": EXPLODED | {"bad batches", "no gradient", "not learning", "learns poorly"},
    "slow": STUCK | EXPLODED,
    "structure": STUCK,
    "vanishing": {"vanishing", "not learning"},
    "dead": {"dead units", "no gradient"},
    "undefined": {
        "undefined derivative",
        "non-finite loss",
        "non-finite at the start",
        "sudden non-finite loss",
        "bad batches",
    },
    "float16": {"float16 overflow", *EXPLODED},
}
# Programs into which each fault is injected, and of each healthy program.
EACH = 3


def faulty(families):
    """Pairs of a `Fault` and the programs, healthy and faulty, `(base, program)`."""
    which = ("dev", "test").index(families)
    found, bases = [], BASES[families]
    for index, fault in enumerate(FAULTS):
        start = index % len(bases)
        fitting = [p for p in bases[start:] + bases[:start] if fault.fits(p)]
        for base in fitting[:EACH]:
            found.append((fault, base, fault.inject(base, fault.sizes[which])))
    return found


def healthy(families):
    """Pairs of what is different and the program."""
    return [
        (name, variant(base))
        for base in BASES[families]
        for name, variant in VARIANTS.items()
    ]
