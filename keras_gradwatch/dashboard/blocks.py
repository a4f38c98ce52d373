"""Variables grouped by the block of the network to which they belong."""

import itertools
import re

# So many variables are shown one by one; more of them by block.
MANY = 60
# Blocks of a network.
FEWEST, MOST = 5, 40


def labels(variables):
    """Strips the path that all names share; returns a list of str."""
    parts = [name.split("/") for name in variables]
    # A layer and a variable are left of each.
    heads = zip(*(p[:-2] for p in parts), strict=False)
    shared = len(list(itertools.takewhile(lambda head: len(set(head)) == 1, heads)))
    return ["/".join(p[shared:]) for p in parts]


def blocks(variables):
    """Groups neighbors with the same beginning of their names.

    Layers' names are cut at `/` and `_`, at the finest depth with at most `MOST`
    groups, or at a finer one if that hardly separates anything. Returns a list of
    contiguous `(name, first, end)`, indices of the variables.
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
