"""Tensors of equal shape, taken together: one operation for many.

A network has many variables and few shapes. With small tensors it is the number of
operations that costs, when they are traced and when they run: a copy is cheaper.
"""

import math

from keras import ops


class Groups:
    """V tensors, sorted into groups of equal shape and dtype.

    Args:
        tensors: List of V tensors or variables, all with static shapes.
        most: Number of elements from which on a tensor is a group of its own: there, a
            copy costs more than an operation.
        least: Number of tensors from which on they make a group.

    Attributes:
        places: List of G lists, which of the V tensors are in each group.
        shapes: List of the V shapes, tuples.
    """

    def __init__(self, tensors, most=16_384, least=2):
        found = {}
        for place, tensor in enumerate(tensors):
            shape = tuple(tensor.shape)
            size = math.prod(shape) if None not in shape else None
            alone = place if size is None or size > most else None
            key = (shape, str(tensor.dtype), alone)
            found.setdefault(key, (size, []))[1].append(place)
        groups = []
        for size, places in found.values():
            size = -1 if size is None else size
            together = [places] if len(places) >= least else [[p] for p in places]
            groups += [(size, places) for places in together]
        self._sizes = [size for size, _ in groups]
        self.places = [places for _, places in groups]
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        order = [place for places in self.places for place in places]
        self._back = [order.index(place) for place in range(len(order))]

    def join(self, tensors):
        """V tensors as G float32 matrices [n, elements]."""
        matrices = []
        for places, size in zip(self.places, self._sizes, strict=True):
            mine = [tensors[place] for place in places]
            mine = ops.stack(mine) if len(mine) > 1 else mine[0]
            mine = ops.reshape(mine, (len(places), size))
            matrices.append(ops.cast(mine, "float32"))
        return matrices

    def split(self, matrices):
        """The V tensors of G matrices that `join` made."""
        result = [None] * len(self.shapes)
        for places, matrix in zip(self.places, matrices, strict=True):
            rows = ops.unstack(matrix, len(places)) if len(places) > 1 else [matrix]
            for place, row in zip(places, rows, strict=True):
                result[place] = ops.reshape(row, self.shapes[place])
        return result

    def collect(self, parts):
        """A tensor [V, ...] of G tensors [n, ...]: a row for each of the V tensors."""
        if len(parts) == 1:
            return parts[0]
        together = ops.concatenate(parts)
        if self._back == list(range(len(self._back))):
            return together
        return ops.take(together, self._back, axis=0)

    def distribute(self, values):
        """G tensors [n] of a tensor [V]."""
        return [ops.take(values, places, axis=0) for places in self.places]
