"""Bad steps in a row, and whether chance explains them.

A bad batch says nothing about the learning rate or the weights: the steps around it are
good. Where every step is bad from some step on, it is not the batches.
"""

# A row that is less probable than this, if batches are bad independently, is no chance.
CHANCE = 1e-4


def initial_streak():
    """What is remembered before the first step, a dict of numbers."""
    return {"steps": 0, "bad": 0, "row": 0}


def count(memory, bad):
    """Takes in one step.

    Args:
        memory: Dict as `initial_streak` returns it; updated in place.
        bad: Whether it is a bad one.
    """
    if bad:
        memory["row"] += 1
        return
    memory["steps"] += 1 + memory["row"]
    memory["bad"] += memory["row"]
    memory["row"] = 0


def is_no_chance(memory, least):
    """Whether the present row is longer than chance explains.

    The fraction of bad steps is that before the row, by Laplace's rule of succession.

    Args:
        memory: Dict of numbers.
        least: Length from which on a row may be none.
    """
    fraction = (memory["bad"] + 1) / (memory["steps"] + 2)
    return memory["row"] >= least and fraction ** memory["row"] < CHANCE
