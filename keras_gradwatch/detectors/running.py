"""The weight of a value in a running mean."""


def weight(number, decay):
    """Returns the weight of the `number`-th value, from 1: m ← m + weight · (x − m).

    A plain average while values are few, then an exponential moving average.
    """
    return max(1 / number, 1 - decay)
