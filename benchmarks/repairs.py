"""The edit of a `Program` that an advice of the report asks for, made mechanically."""

import re

HE = {"init": ("he_normal", ()), "recurrent_gain": 1.0}


def _change(name):
    return lambda p, _: p.replace(changes=(*p.changes, (name, 0)))


def _classes(program, _):
    """A crossentropy of logits, with a unit for each class."""
    edits = {"last": "linear", "units": None, "loss": None, "from_logits": True}
    return program.replace(**edits)


def _hidden_layers(program, _):
    return program.replace(depth=max(1, program.depth), activation="relu", width=32)


# Patterns of advice, the more special first, and what each asks for.
EDITS = (
    (r"Lower the learning rate from \S+ to about ([\d.e+-]+)\d*", "rate"),
    (r"Raise the learning rate from \S+ to about ([\d.e+-]+)", "rate"),
    (r"Compile with a learning rate of ([\d.e+-]+)", "rate"),
    (
        r"[Tt]rain for (?:about )?(\d+) times as many",
        lambda p, m: p.replace(epochs=p.epochs * int(m[1])),
    ),
    (r"Use a momentum of 0.9", lambda p, _: p.replace(momentum=0.9)),
    (r"Scale the inputs", lambda p, _: p.replace(scales_inputs=True)),
    (r"Scale the targets", _change("targets standard")),
    (r"Crossentropy\(from_logits=True\)`, and no activation", _classes),
    (r"Crossentropy\(from_logits=True\)", lambda p, _: p.replace(from_logits=True)),
    (
        r'Dense\(1, activation="sigmoid"\)',
        lambda p, _: p.replace(last="sigmoid", loss="binary_crossentropy"),
    ),
    (
        r'Use `activation="(softmax|sigmoid|softplus)"',
        lambda p, m: p.replace(last=m[1]),
    ),
    (
        r"Remove the activation of|remove the activation of the last",
        lambda p, _: p.replace(last="linear"),
    ),
    (r'Compile with `loss="mean_absolute_error"', lambda p, _: p.replace(loss="mae")),
    (r'takes negative targets, such as `"mse"`', lambda p, _: p.replace(loss="mse")),
    (r"Number the classes from 0", _change("classes from 0")),
    (r"Encode the labels", _change("classes from 0")),
    (r"Remove or fill", _change("filled")),
    (r"isfinite", _change("filled")),
    (r"[Ss]et `?(layer|model)\.trainable", lambda p, _: p.replace(frozen=False)),
    (r"hidden layer", _hidden_layers),
    (r"at least (\d+) units", lambda p, m: p.replace(width=int(m[1]))),
    (r"dropout rate of at most 0.5", lambda p, _: p.replace(dropout=0.5)),
    (r"biases? .*(zero|0)", lambda p, _: p.replace(bias=0.0)),
    (r"in float32", lambda p, _: p.replace(dtype="float32")),
    (r"Use `relu` with `he_normal`", lambda p, _: p.replace(activation="relu", **HE)),
    (r"Use `(?:he_normal|orthogonal)`", lambda p, _: p.replace(**HE)),
    (r"normalization", lambda p, _: p.replace(normalized=True)),
)


def repaired(program, advice):
    """The program that follows the advice; None where it is not mechanical."""
    for pattern, edit in EDITS:
        if match := re.search(pattern, advice):
            if edit == "rate":
                return program.replace(rate=float(match[1].rstrip(".")))
            return edit(program, match)
    return None
