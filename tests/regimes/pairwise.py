"""Few combinations of many names, in which every wanted pair of names is."""

from collections import Counter
from itertools import combinations, product


def cover(tables, wanted, is_allowed, dear=()):
    """Chooses combinations greedily until every wanted pair is in one of them.

    Args:
        tables: Dict of a dimension's name to the names in it.
        wanted: Pairs of dimensions, all pairs of whose names are wanted.
        is_allowed: Says of a set of names whether they may be together. Every
            dimension has one name that may be with all others.
        dear: Names that are chosen only where they gain a pair.

    Returns:
        List of tuples, a name of each dimension in the order of `tables`.
    """
    missing = dict.fromkeys(
        frozenset(pair)
        for one, other in wanted
        for pair in product(tables[one], tables[other])
        if is_allowed(pair)
    )
    used, chosen = Counter(), []
    while missing:
        names = set(next(iter(missing)))

        def merit(name, names=names):
            gained = sum(frozenset((name, other)) in missing for other in names)
            return gained, name not in dear, -used[name]

        for table in tables.values():
            if names.isdisjoint(table):
                allowed = [name for name in table if is_allowed({*names, name})]
                names.add(max(allowed, key=merit))
        used.update(names)
        for pair in combinations(names, 2):
            missing.pop(frozenset(pair), None)
        chosen.append(tuple(next(n for n in t if n in names) for t in tables.values()))
    return chosen
