"""The weight of a value in a running mean."""


def weight(number, decay):
    """The weight of value `number`, from 1: m ← m + weight · (x − m).

    A plain average while values are few, an exponential window from then on.
    """
    return max(1 / number, 1 - decay)
