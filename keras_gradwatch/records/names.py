"""Unique names of variables."""


def unique(names):
    """Makes names unique by suffixes `_1`, `_2`, ...; the first of equal ones stays."""
    names = list(names)
    # Every original name is reserved, so that a suffix never takes the name of a
    # variable that comes later. Two suffixed names cannot be equal: what stands before
    # their last underscore differs.
    taken = set(names)
    repeats = {}
    distinct = []
    for name in names:
        if name not in repeats:
            repeats[name] = 0
            distinct.append(name)
            continue
        repeats[name] += 1
        while f"{name}_{repeats[name]}" in taken:
            repeats[name] += 1
        distinct.append(f"{name}_{repeats[name]}")
    return distinct
