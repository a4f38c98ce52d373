"""Settings that contradict each other, found in the compiled model.

After the static rules of NeuraLint (Nikanjam et al. 2021, arXiv 2105.08095) and UMLAUT
(Schoop et al. 2021), restated for Keras 3.
"""

from keras_gradwatch.reports.diagnosis.finding import Finding

# Activations whose values are no probabilities.
NO_PROBABILITY = ("linear", "relu", "tanh", "selu", "elu", "gelu", "leaky_relu")
MAY_BE_NEGATIVE = ("linear", "tanh", "elu", "selu", "leaky_relu", "gelu", "silu")


def contradictions(summary):
    """Finds settings that are wrong whatever the data are."""
    found, rate = [], summary.rates[0]
    if rate < 0:
        found.append(
            Finding(
                "settings",
                f"the learning rate is negative ({rate:.3g}): each update increases "
                "the loss",
                f"Compile with a learning rate of {-rate:.3g}.",
                "the learning rate is negative",
            )
        )
    rules = (_one_unit, _missing_activation, _twice, _logarithm)
    for head in summary.model.get("heads", []):
        found += [f for rule in rules if (f := rule(head))][:1]
    return found


def doubts(summary):
    """Finds settings that are unusual, and explain a run that does not learn."""
    model = summary.model
    # Whether the last layer can give the targets is known where they were examined.
    known = bool(summary.data["targets"])
    found = [f for head in model.get("heads", []) if (f := _unusual(head, known))]
    if model.get("linear_stack"):
        found.append(
            Finding(
                "structure",
                "several Dense layers follow each other without an activation between "
                "them: together they are equivalent to one linear layer",
                'Give the hidden layers an activation, such as `Dense(..., "relu")`.',
                "the hidden layers have no activation",
            )
        )
    if model.get("kernels") == 1 and model.get("heads"):
        found.append(
            Finding(
                "structure",
                "the model has a single layer with weights, so it can only learn "
                "linear functions of its inputs",
                'Add a hidden layer, such as `Dense(32, "relu")`.',
                "the model has no hidden layer",
            )
        )
    return [*found, *(f for f in [high_dropout(model, 0.5)] if f)]


def high_dropout(model, limit):
    """Finds a dropout rate above a limit, or returns None."""
    rate = model.get("dropout", 0.0)
    if not rate > limit:
        return None
    return Finding(
        "settings",
        f"a dropout rate of {rate:.2g} removes most of the units",
        "Use a dropout rate of at most 0.5.",
        "the dropout rate is too high",
    )


def _finding(head, what, advice):
    words = f"the last layer `{head['layer']}` {what}"
    return Finding("settings", words, advice, f"`{head['layer']}` {what}")


def _one_unit(head):
    if head["activation"] != "softmax" or head["units"] != 1:
        return None
    return _finding(
        head,
        "is a softmax over one unit: its output is always 1",
        'Use `Dense(1, activation="sigmoid")` and compile with '
        '`loss="binary_crossentropy"`.',
    )


def _missing_activation(head):
    name = {"classes": "softmax", "binary": "sigmoid"}.get(head["family"])
    wrong = head["activation"] in NO_PROBABILITY and not head["from_logits"]
    if name is None or not wrong:
        return None
    loss = f"the loss {head['loss']} expects probabilities"
    if head["activation"] != "linear":
        return _finding(
            head,
            f"has the activation {head['activation']}, but {loss}",
            f'Use `activation="{name}"` in the last layer.',
        )
    kind = "Binary" if name == "sigmoid" else "Categorical"
    if "sparse" in head["loss"].lower():
        kind = f"Sparse{kind}"
    return _finding(
        head,
        f"has no {name}, but {loss}",
        f"Compile with `loss=keras.losses.{kind}Crossentropy(from_logits=True)`.",
    )


def _twice(head):
    if not head["from_logits"] or head["activation"] not in ("softmax", "sigmoid"):
        return None
    return _finding(
        head,
        f"has a {head['activation']}, but the loss {head['loss']}(from_logits=True) "
        "applies another one",
        "Remove the activation of the last layer, or `from_logits=True`.",
    )


def _logarithm(head):
    # Of a squared logarithmic error, Keras sets negative outputs to 0.
    if (head["loss"] or "").lower() != "poisson":
        return None
    if head["activation"] not in MAY_BE_NEGATIVE:
        return None
    return _finding(
        head,
        f"may have negative outputs, but the loss {head['loss']} takes their logarithm",
        'Use `activation="softplus"` or `"exponential"` in the last layer.',
    )


def _unusual(head, known):
    activation, family = head["activation"], head["family"]
    if family == "regression" and activation == "softmax":
        return _finding(
            head,
            f"is a softmax, but {head['loss']} is a loss for regression",
            "For classes, compile with a crossentropy; for regression, remove the "
            "activation of the last layer.",
        )
    bounded = activation in ("relu", "sigmoid", "tanh") and not known
    if family in ("regression", "percentage") and bounded:
        return _finding(
            head,
            f"has the activation {activation}, which limits the values that it can "
            "predict",
            "For regression, remove the activation of the last layer; for two classes, "
            "compile with a crossentropy.",
        )
    if family == "classes" and activation == "sigmoid":
        return _finding(
            head,
            f"is a sigmoid, but {head['loss']} is a loss for mutually exclusive "
            "classes",
            'Compile with `loss="binary_crossentropy"`.'
            if head["units"] == 1
            else 'Use `activation="softmax"` in the last layer.',
        )
    if family == "logarithm" and activation in MAY_BE_NEGATIVE:
        return _finding(
            head,
            f"may have negative outputs, where the loss {head['loss']} has no gradient",
            'Use `activation="softplus"` in the last layer.',
        )
    if family == "binary" and activation == "softmax":
        return _finding(
            head,
            f"is a softmax, but {head['loss']} is a loss for independent labels",
            "Compile with `loss=keras.losses.CategoricalCrossentropy()`.",
        )
    return None
