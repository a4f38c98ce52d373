"""Unique names of variables."""


def unique(names):
    """Tells variables with the same path apart by a suffix.

    The first of a kind keeps its name, later ones get `_1`, `_2`, ...; a suffixed name
    that some other variable bears already is passed over.

    Args:
        names: iterable of str, variable paths in the model's order.

    Returns:
        list of str, as long as `names` and in the same order, all distinct.
    """
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
