"""Several small arrays in one variable: a step pays for each variable that it uses."""

import numpy as np
from keras import ops


def pack_values(values):
    """The vector [K] of a dict of NumPy arrays and numbers, float32."""
    parts = [np.ravel(np.asarray(value, "float32")) for value in values.values()]
    return np.concatenate([*parts, np.zeros(0, "float32")])


def unpack_values(vector, like):
    """The dict of NumPy arrays that `pack_values` made a vector [K] of.

    Args:
        vector: NumPy array [K].
        like: Dict of arrays of the same names, shapes and order.
    """
    ends = np.cumsum([np.size(value) for value in like.values()])
    parts = zip(like.items(), np.split(vector, ends[:-1]), strict=True)
    return {name: part.reshape(np.shape(value)) for (name, value), part in parts}


def pack(values, like):
    """The vector [K] of a dict of tensors, in the order of the dict `like`."""
    if all(np.shape(value) == () for value in like.values()):
        return ops.stack([ops.cast(values[name], "float32") for name in like])
    parts = [ops.reshape(ops.cast(values[n], "float32"), (-1,)) for n in like]
    return ops.concatenate(parts)


class Packed:
    """Several values of one variable, as they are in a step.

    Args:
        variable: The `keras.Variable` [K].
        like: Dict of arrays, what is in it.
    """

    def __init__(self, variable, like):
        self._variable, self._like = variable, like
        self._vector = ops.copy(variable)
        self._values, self._new = {}, {}
        ends = np.cumsum([np.size(value) for value in like.values()])
        self._ends = dict(zip(like, map(int, ends), strict=True))

    def __getitem__(self, name):
        if name not in self._values:
            self._take([name])
        return self._values[name]

    def part(self, prefix, latest=False):
        """Those whose names begin with `prefix/`, a dict of the rest of their names.

        Args:
            prefix: Of the names.
            latest: Whether what was put counts; else what was there before the step.
        """
        begin = f"{prefix}/"
        names = [name for name in self._like if name.startswith(begin)]
        if self._values.keys().isdisjoint(names):
            self._take(names)
        get = self.latest if latest else self.__getitem__
        return {name.removeprefix(begin): get(name) for name in names}

    def _take(self, names):
        """Reads values that stand next to each other."""
        if not names:
            return
        sizes = [int(np.size(self._like[name])) for name in names]
        end = self._ends[names[-1]]
        vector = self._vector[end - sum(sizes) : end]
        if all(np.shape(self._like[name]) == () for name in names):
            parts = ops.unstack(vector, len(names))
        else:
            ends = np.cumsum(sizes)[:-1].tolist()
            parts = ops.split(vector, ends) if ends else [vector]
            shapes = [np.shape(self._like[name]) for name in names]
            parts = [ops.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]
        self._values.update(zip(names, parts, strict=True))

    def put(self, name, value):
        """Notes a new value; `write` assigns it."""
        self._new[name] = value

    def latest(self, name):
        """The new value, or the old one where there is none."""
        return self._new[name] if name in self._new else self[name]

    def write(self):
        """Assigns what was put."""
        if self._new:
            values = {name: self.latest(name) for name in self._like}
            self._variable.assign(pack(values, self._like))
