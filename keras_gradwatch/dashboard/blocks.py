"""Variables grouped by the block of the network that they belong to."""

import itertools
import re

# So many variables are shown one by one; more of them by block.
MANY = 60
# Blocks of a network.
FEWEST, MOST = 5, 40


def labels(variables):
    """The names without the path that all of them share, a list of str."""
    parts = [name.split("/") for name in variables]
    # A layer and a variable are left of each.
    heads = zip(*(p[:-2] for p in parts), strict=False)
    shared = len(list(itertools.takewhile(lambda head: len(set(head)) == 1, heads)))
    return ["/".join(p[shared:]) for p in parts]


def blocks(variables):
    """Groups neighbours with the same beginning of their names.

    Layers' names are cut at `/` and `_`. Of the depths at which they may be cut, the
    finest one with at most `MOST` groups is used, or a finer one if that one hardly
    separates anything.

    Args:
        variables: Names, in the order of the network.

    Returns:
        List of `(name, first, end)`: indices of the variables; contiguous.
    """
    layers = [name.rpartition("/")[0] or name for name in labels(variables)]
    tokens = [re.split(r"(?<=[^/_])(?=[/_])", layer) for layer in layers]
    found = []
    for depth in range(1, max(map(len, tokens), default=0) + 1):
        finer = _neighbours(["".join(t[:depth]) for t in tokens])
        if len(finer) > MOST and len(found) >= FEWEST:
            break
        found = finer
    return found


def _neighbours(keys):
    found, first = [], 0
    for key, members in itertools.groupby(keys):
        end = first + len(list(members))
        found.append((key, first, end))
        first = end
    return found
