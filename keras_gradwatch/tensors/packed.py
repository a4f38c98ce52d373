"""Many tensors packed into a few matrices: one operation instead of one per tensor.

Most variables are small: the number of operations costs more than a copy does.
"""

import math

import numpy as np
from keras import ops

from keras_gradwatch.tensors.reductions import largest_by_owner, sums_by_owner

ROW = 256


class Packed:
    """Packs V tensors into float32 matrices.

    Small tensors, of up to `most` elements, share a matrix with rows of `ROW` elements
    if there are at least `least` of them: each starts in a new row, and its last row is
    padded with zeros. Other tensors, also those of unknown shape, are matrices of one
    row.

    Attributes:
        shapes: List of the V shapes, tuples.
        padding: Array [V], the number of padding zeros of each tensor.
        has_shared_matrix: Whether any tensors share a matrix.
    """

    def __init__(self, tensors, most=2**18, least=2):
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        sizes = [None if None in s else math.prod(s) for s in self.shapes]
        small = [i for i, n in enumerate(sizes) if n is not None and n <= most]
        self._small = small if len(small) >= least else []
        self.has_shared_matrix = bool(self._small)
        packed = set(self._small)
        self._alone = [i for i in range(len(tensors)) if i not in packed]
        self._sizes = [sizes[i] for i in self._small]
        self._rows = [max(1, -(-n // ROW)) for n in self._sizes]
        # Of each row of the shared matrix: the tensor that it belongs to.
        self._owners = np.repeat(np.arange(len(self._small)), self._rows).astype(int)
        self.padding = np.zeros(len(tensors), "float32")
        fillers = np.multiply(self._rows, ROW) - self._sizes
        self.padding[self._small] = fillers if self._small else 0
        self._back = np.argsort([*self._small, *self._alone], kind="stable")

    def join(self, tensors):
        """Packs V tensors into a list of matrices [n, k]."""
        alone = [
            ops.reshape(ops.cast(tensors[i], "float32"), (1, -1)) for i in self._alone
        ]
        if not self._small:
            return alone
        parts, zeros = [], {}
        for i in self._small:
            parts.append(ops.reshape(ops.cast(tensors[i], "float32"), (-1,)))
            filler = int(self.padding[i])
            if filler:
                if filler not in zeros:
                    zeros[filler] = ops.zeros((filler,), "float32")
                parts.append(zeros[filler])
        return [ops.reshape(ops.concatenate(parts), (-1, ROW)), *alone]

    def split(self, matrices):
        """Returns the V tensors of the matrices that `join` made."""
        result = [None] * len(self.shapes)
        if self._small:
            shared, *matrices = matrices
            shared, begin = ops.reshape(shared, (-1,)), 0
            for i, size, rows in zip(self._small, self._sizes, self._rows, strict=True):
                tensor = shared[begin : begin + size]
                result[i] = ops.reshape(tensor, self.shapes[i])
                begin += rows * ROW
        for i, matrix in zip(self._alone, matrices, strict=True):
            result[i] = ops.reshape(matrix, self.shapes[i])
        return result

    def total(self, parts):
        """Returns the sum over each tensor, [V], from row sums [n] of each matrix."""
        return self._reduce(parts, sums_by_owner)

    def largest(self, parts):
        """Returns the maximum of each tensor, [V], from the row maxima [n]."""
        return self._reduce(parts, largest_by_owner)

    def _reduce(self, parts, by_owner):
        if self._small:
            shared, *alone = parts
            parts = [by_owner(shared, self._owners, len(self._small)), *alone]
        together = ops.concatenate(parts) if len(parts) > 1 else parts[0]
        if list(self._back) == list(range(len(self._back))):
            return together
        return ops.take(together, self._back, axis=0)

    def distribute(self, values):
        """Repeats values [V, ...] for the rows of each matrix, a list of [n, ...]."""
        parts = [ops.take(values, [i], axis=0) for i in self._alone]
        if not self._small:
            return parts
        return [ops.take(values, np.take(self._small, self._owners), axis=0), *parts]

    def masks(self):
        """Returns a mask of each matrix that is False on padding; None: no padding."""
        masks = [None] * len(self._alone)
        if not self._small:
            return masks
        pairs = zip(self._sizes, self._rows, strict=True)
        last = [n - (rows - 1) * ROW for n, rows in pairs]
        filled = np.full(len(self._owners), ROW)
        filled[np.cumsum(self._rows) - 1] = last
        columns = ops.arange(ROW, dtype="int32")
        return [columns[None] < ops.convert_to_tensor(filled[:, None], "int32"), *masks]
