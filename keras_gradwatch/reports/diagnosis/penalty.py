"""Weight regularizers that outweigh the loss of the data.

A penalty that is too strong drives the weights to 0, and the model to a constant
answer. The penalty now is estimated from the first one and the norms of the weights.
"""

from keras_gradwatch.reports.diagnosis.data import loss_of_guessing
from keras_gradwatch.reports.diagnosis.finding import Finding

# Fraction of a constant answer's loss from which on a first penalty is large.
LARGE = 0.25
# Fraction of the first penalty that is left at most.
SHRUNK = 0.25
# Fraction of the same loss above which nothing was learned, and fewest steps for it.
NOTHING, FEWEST = 0.97, 150


def outweighed(summary):
    """Finds a constant prediction due to shrunken weights, or returns None."""
    constant, kept = loss_of_guessing(summary), _kept(summary)
    if not constant or kept is None or summary.steps < FEWEST or not summary.recent:
        return None
    penalty = summary.model.get("penalty", 0.0)
    data_loss = summary.losses()[1] - kept * penalty
    if penalty < LARGE * constant or kept > SHRUNK or data_loss < NOTHING * constant:
        return None
    return Finding(
        "not learning",
        f"the loss without the regularizers is about {data_loss:.3g} in the latest "
        f"steps; always predicting the same value would give {constant:.3g}",
        headline="The model is no better than a constant prediction after "
        f"{summary.steps} steps",
    )


def strong_penalty(summary):
    """Finds the regularizers that explain `outweighed`, or returns None."""
    if outweighed(summary) is None:
        return None
    penalty, kept = summary.model["penalty"], _kept(summary)
    return Finding(
        "settings",
        f"the regularizers add {penalty:.3g} to the loss at the first step, and have "
        f"reduced the norm of the weights to {kept**0.5:.0%} of its first value",
        "Divide the factors of the regularizers by 100 (for example, L2(1e-4) instead "
        "of L2(1e-2)).",
        "the regularizers outweigh the loss",
    )


def _kept(summary):
    """Returns the penalty in the latest sample over the first one, or None.

    Each kernel's penalty is assumed to be proportional to its squared norm.
    """
    first = last = 0.0
    for name, penalty in summary.model.get("penalties", {}).items():
        numbers = summary.variables.get(name, {})
        known = {"weight_first", "weight_last"} <= numbers.keys()
        if known and numbers["weight_first"] > 0:
            first += penalty
            last += penalty * (numbers["weight_last"] / numbers["weight_first"]) ** 2
    return last / first if first else None
