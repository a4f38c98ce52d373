"""Bad steps in a row, and whether chance explains them.

A single bad batch says nothing about the learning rate or the weights, because the
steps around it are good. If every step is bad from some step on, the batches are not
the cause.
"""

# A streak of bad steps exceeds chance if its probability is below this, assuming that
# batches are bad independently of each other.
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


def exceeds_chance(memory, least):
    """Returns whether the streak has `least` bad steps or more, and exceeds chance.

    The fraction of bad steps before it follows Laplace's rule of succession.
    """
    fraction = (memory["bad"] + 1) / (memory["steps"] + 2)
    return memory["row"] >= least and fraction ** memory["row"] < CHANCE
