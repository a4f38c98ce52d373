"""Many tensors as a few matrices: one operation instead of one for each tensor.

A network has many variables, and most of them are small. It is then the number of
operations that costs, when a step is traced, compiled and run: a copy is cheaper.
"""

import math

import numpy as np
from keras import ops

from keras_gradwatch.tensors.reductions import largest_by_owner, sums_by_owner

ROW = 256


class Packed:
    """V tensors as matrices of float32.

    The small ones share a matrix with rows of `ROW` elements: each begins in a row of
    its own, and its last row is padded with zeros. Every other tensor is a matrix of
    one row.

    Args:
        tensors: List of V tensors or variables.
        most: Number of elements up to which a tensor is small. A tensor of unknown
            shape is not.
        least: Smallest number of small tensors that are packed.

    Attributes:
        shapes: List of the V shapes, tuples.
        padding: Array [V], the number of zeros that each tensor is padded with.
        shares: Whether any tensors share a matrix.
    """

    def __init__(self, tensors, most=2**18, least=2):
        self.shapes = [tuple(tensor.shape) for tensor in tensors]
        sizes = [None if None in s else math.prod(s) for s in self.shapes]
        small = [i for i, n in enumerate(sizes) if n is not None and n <= most]
        self._small = small if len(small) >= least else []
        self.shares = bool(self._small)
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
        """V tensors as matrices [n, k], a list."""
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
        """The V tensors of the matrices that `join` made."""
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
        """Sums over each tensor, [V].

        Args:
            parts: For each matrix [n, k] a tensor [n], the sums over its rows.
        """
        return self._reduce(parts, sums_by_owner)

    def largest(self, parts):
        """The largest of each tensor, [V]; `parts` as in `total`."""
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
        """For each matrix [n, k] a tensor [n, ...]: the value of each row's tensor.

        Args:
            values: Tensor [V, ...].
        """
        parts = [ops.take(values, [i], axis=0) for i in self._alone]
        if not self._small:
            return parts
        return [ops.take(values, np.take(self._small, self._owners), axis=0), *parts]

    def masks(self):
        """For each matrix, where it holds elements of a tensor; None: everywhere."""
        masks = [None] * len(self._alone)
        if not self._small:
            return masks
        pairs = zip(self._sizes, self._rows, strict=True)
        last = [n - (rows - 1) * ROW for n, rows in pairs]
        filled = np.full(len(self._owners), ROW)
        filled[np.cumsum(self._rows) - 1] = last
        columns = ops.arange(ROW, dtype="int32")
        return [columns[None] < ops.convert_to_tensor(filled[:, None], "int32"), *masks]
