"""Bad steps in a row, and whether chance explains them.

A bad batch says nothing about the learning rate or the weights: the steps around it are
good. Where every step is bad from some step on, it is not the batches.
"""

# A row that is less probable than this, if batches are bad independently, is not due to
# chance.
CHANCE = 1e-4


def initial_streak():
    """Returns the state before the first step, a dict of numbers."""
    return {"steps": 0, "bad": 0, "row": 0}


def count(memory, bad):
    """Adds a step, bad or not, to `memory` (see `initial_streak`)."""
    if bad:
        memory["row"] += 1
        return
    memory["steps"] += 1 + memory["row"]
    memory["bad"] += memory["row"]
    memory["row"] = 0


def is_no_chance(memory, least):
    """Returns whether the row of bad steps is at least `least`, and not due to chance.

    The fraction of bad steps before it follows Laplace's rule of succession.
    """
    fraction = (memory["bad"] + 1) / (memory["steps"] + 2)
    return memory["row"] >= least and fraction ** memory["row"] < CHANCE
