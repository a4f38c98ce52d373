"""Statistics of gradients as a matrix: pure functions on `keras.ops`.

All statistics are float32, of the gradient summed over replicas and unscaled.
"""

import math

from keras import ops

from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensors.branch import cond, outlined
from keras_gradwatch.tensors.packed import Packed
from keras_gradwatch.tensors.reductions import (
    largest,
    largest_of_rows,
    row_squares,
    sums_of_squares,
)
from keras_gradwatch.tensors.sparse import SparseRows

GRADIENT_NAMES = NAMES[:6]

FLOAT32_MAX = 3.4028235e38
# The reciprocal of what is larger is denormal, and XLA divides by multiplying with it.
LARGEST_DIVISOR = 1e37

# In every step, gradients are packed up to this number of elements, ...
MAX_PACKED_SIZE = 4096
# ... and from this number of them on. Else a copy costs more than it saves.
MIN_PACKED_COUNT = 16


def elements(gradient):
    """Returns the values in float32, and the number of zeros that they omit."""
    if isinstance(gradient, SparseRows):
        rows = ops.cast(gradient.rows, "float32")
        stored = ops.cast(ops.size(rows), "float32")
        return rows, float(gradient.size) - stored
    return ops.cast(gradient, "float32"), 0.0


def count(gradient):
    """Returns the number of elements of `gradient`, a float, at least 1 if dense."""
    if isinstance(gradient, SparseRows):
        return float(gradient.size)
    return max(float(math.prod(gradient.shape)), 1.0)


def squares(gradients):
    """Returns the sum of squares of each gradient, float32 [V]; may be out of range."""
    values = [elements(g)[0] for g in gradients]
    packed = Packed(values, most=MAX_PACKED_SIZE, least=MIN_PACKED_COUNT)
    if not packed.has_shared_matrix:
        return sums_of_squares(values)
    return packed.total([row_squares(matrix) for matrix in packed.join(values)])


def measure(gradients, names=GRADIENT_NAMES, detailed=True):
    """Returns the statistics [V, len(names)] of each gradient, and the global norm.

    One pass computes the norms and shows whether all values are finite. More passes
    follow only if some are not, or if `detailed` (scalar bool) is True. Without them,
    all columns but `norm` and `nonfinite_count`, which `names` must include, are NaN,
    and a norm whose squares underflow in float32 may be 0.
    """
    squared = squares(gradients)
    total = ops.sqrt(ops.sum(squared))
    plain = ops.isfinite(total)
    if len(names) > 2:
        plain = plain & ~ops.cast(detailed, "bool")

    def quick():
        return [quick_statistics(ops.sqrt(squared), names), total]

    return cond(plain, quick, outlined(lambda: [*statistics(gradients, names)]))


def quick_statistics(norms, names):
    """Fills the matrix of finite gradients from `norms` [V]; other columns are NaN."""
    columns = {"norm": norms, "nonfinite_count": ops.zeros_like(norms)}
    missing = ops.zeros_like(norms) + float("nan")
    return ops.stack([columns.get(name, missing) for name in names], axis=1)


def statistics(gradients, names=GRADIENT_NAMES):
    """Returns the statistics [V, len(names)] of each gradient, and the global norm.

    Values are divided by the largest magnitude of their variable before they are
    squared, so that finite gradients have a finite norm.
    """
    values, missing = zip(*[elements(g) for g in gradients], strict=True)
    packed = Packed(values)
    matrices = packed.join(values)
    sizes = ops.convert_to_tensor([count(g) for g in gradients], "float32")
    absent = ops.stack([ops.cast(m, "float32") for m in missing])

    finite = [ops.isfinite(matrix) for matrix in matrices]
    known = [ops.where(f, m, 0.0) for f, m in zip(finite, matrices, strict=True)]
    bad = packed.total([_how_many(~f) for f in finite])
    scale = packed.largest([largest_of_rows(ops.abs(m)) for m in known])
    unit = divisor(scale)
    units = [u[:, None] for u in packed.distribute(unit)]
    scaled = [m / u for m, u in zip(matrices, units, strict=True)]
    # What is not finite stays so: NaN where any value is, else infinity.
    norm = unit * ops.sqrt(packed.total([row_squares(m) for m in scaled]))
    norm = ops.where(bad > 0, norm, ops.minimum(norm, FLOAT32_MAX))

    columns = {"norm": norm, "nonfinite_count": bad}
    if "max_abs" in names:
        columns["max_abs"] = ops.where(bad > 0, norm, scale)
    if "mean" in names or "std" in names:
        mean = packed.total([ops.sum(m, axis=1) for m in scaled]) / sizes
        spread = _squared_deviations(packed, scaled, mean) + absent * ops.square(mean)
        columns["mean"] = mean * unit
        columns["std"] = unit * ops.sqrt(ops.maximum(spread, 0.0) / sizes)
    if "zero_fraction" in names:
        zeros = packed.total([_how_many(ops.equal(m, 0.0)) for m in matrices])
        absent = absent - ops.convert_to_tensor(packed.padding)
        zeros = zeros + absent
        # A division may be off by a rounding: 32 / 32 is 0.99999994 on some CPUs.
        columns["zero_fraction"] = ops.where(zeros < sizes, zeros / sizes, 1.0)
    return ops.stack([columns[name] for name in names], axis=1), global_norm(norm)


def _how_many(flags):
    """Counts the True values in each row of a bool matrix [n, k], a tensor [n]."""
    return ops.sum(ops.cast(flags, "float32"), axis=1)


def _squared_deviations(packed, matrices, mean):
    """Returns Σ (v − mean)² of each variable, a tensor [V].

    Not E[v²] − mean², which cancels if the mean is large compared to the deviation.
    """
    means = packed.distribute(mean)
    sums = []
    for matrix, own, mask in zip(matrices, means, packed.masks(), strict=True):
        deviation = matrix - own[:, None]
        if mask is not None:
            deviation = ops.where(mask, deviation, 0.0)
        sums.append(row_squares(deviation))
    return packed.total(sums)


def global_norm(variable_norms):
    """Returns √Σ‖gᵢ‖² of norms [V] without overflow; not finite if any norm is not."""
    scale = divisor(largest(variable_norms))
    total = scale * ops.sqrt(ops.sum(ops.square(variable_norms / scale)))
    every = ops.all(ops.isfinite(variable_norms))
    return ops.where(every, ops.minimum(total, FLOAT32_MAX), ops.sum(variable_norms))


def divisor(scale):
    """Returns `scale`, but 1 for 0 and at most `LARGEST_DIVISOR`.

    The squares of values up to `scale`, divided by it, stay in range.
    """
    return ops.where(scale > 0, ops.minimum(scale, LARGEST_DIVISOR), 1.0)


def update_statistics(old, new):
    """Returns `weight_norm` and `update_ratio` of V weights, float32 [V, 2].

    The ratio of a variable that was all zero is +Inf if it moved, and 0 if it did not.
    """
    packed = Packed(new)
    before, after = packed.join(old), packed.join(new)
    changes = [b - a for a, b in zip(before, after, strict=True)]
    norm, moved = [
        ops.sqrt(packed.total([row_squares(m) for m in matrices]))
        for matrices in (before, changes)
    ]
    still = ops.equal(moved, 0.0)
    ratio = ops.where(still, 0.0, moved / ops.where(still, 1.0, norm))
    return ops.stack([norm, ratio], axis=1)
