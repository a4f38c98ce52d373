"""From gradients to a matrix of statistics: pure functions on `keras.ops`.

Every statistic is float32, whatever the dtype of the gradient, and of the gradient
that the optimizer works with: summed over replicas and unscaled.
"""

from keras import ops

from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensors.branch import cond, outlined, traced_once
from keras_gradwatch.tensors.groups import Groups
from keras_gradwatch.tensors.reductions import (
    largest,
    largest_of_rows,
    row_squares,
    sums_of_squares,
)
from keras_gradwatch.tensors.sparse import SparseRows

GRADIENT_NAMES = NAMES[:6]
BASIC_NAMES = ("norm", "zero_fraction", "nonfinite_count")

FLOAT32_MAX = 3.4028235e38
# The reciprocal of what is larger is denormal, and XLA divides by multiplying with it.
LARGEST_DIVISOR = 1e37
# Below this, squares of float32 values are denormal or have vanished.
SAFE_SQUARE = 1e-30

# Gradients of equal shape are measured together: up to this number of elements, ...
MAX_GROUPED_SIZE = 4096
# ... and from this number of gradients on. Below, a copy costs more than it saves.
MIN_GROUP_COUNT = 16


def elements(gradient):
    """Returns (float32 values, number of elements that they leave out, all zero)."""
    if isinstance(gradient, SparseRows):
        rows = ops.cast(gradient.rows, "float32")
        stored = ops.cast(ops.size(rows), "float32")
        return rows, float(gradient.size) - stored
    return ops.cast(gradient, "float32"), 0.0


def count(gradient):
    """Number of elements of `gradient`, a float."""
    if isinstance(gradient, SparseRows):
        return float(gradient.size)
    total = 1.0
    for size in gradient.shape:
        total *= size
    return max(total, 1.0)


def squares(gradients):
    """The sum of squares of each gradient, tensor [V], float32; may be out of range."""
    values = [elements(g)[0] for g in gradients]
    groups = Groups(values, most=MAX_GROUPED_SIZE, least=MIN_GROUP_COUNT)
    if len(groups.places) == len(values):
        return sums_of_squares(values)
    return groups.collect([row_squares(matrix) for matrix in groups.join(values)])


def measure(gradients, names=GRADIENT_NAMES, detailed=True, safe=True):
    """Statistics of each gradient, and the global norm.

    One pass over the gradients gives the norms, and shows whether all of them are
    finite. Only where they are not, and where details are wanted, further passes
    follow. With `safe`, the norm of finite gradients is finite: where a plain sum of
    squares leaves float32's range, the values are divided by the largest magnitude
    first.

    Args:
        gradients: List of V tensors or `SparseRows`, of any float dtype.
        names: Which of `GRADIENT_NAMES` are wanted; `norm` and `nonfinite_count` must
            be among them.
        detailed: Scalar bool, whether the others are measured in this step.
        safe: Whether norms may not overflow.

    Returns:
        `(matrix, norm)`: a tensor [V, len(names)], float32, and the global norm, a
        scalar. Without `detailed`, while all gradients are finite, only `norm` and
        `nonfinite_count` are measured, the others are NaN; and a norm
        whose squares are below float32's range may be given as 0.
    """
    squared = squares(gradients)
    total = ops.sqrt(ops.sum(squared))
    plain = ops.isfinite(total)
    if len(names) > 2:
        plain = plain & ~ops.cast(detailed, "bool")

    def quick():
        return [quick_statistics(ops.sqrt(squared), names), total]

    def careful():
        if not safe:
            return [plain_statistics(gradients, names, squared), total]
        matrix = careful_statistics(gradients, names)
        return [matrix, global_norm(matrix[:, names.index("norm")])]

    return cond(plain, quick, outlined(careful))


def plain_statistics(gradients, names, squared):
    """Statistics of each gradient, the norm by a plain sum of squares.

    Args:
        gradients: List of V tensors or `SparseRows`.
        names: Which of `BASIC_NAMES` are wanted.
        squared: Tensor [V], the sum of squares of each gradient.

    Returns:
        Tensor [V, len(names)], float32. A norm beyond 1.8e19 is infinite.
    """
    values, missing = zip(*[elements(g) for g in gradients], strict=True)
    groups = Groups(values)
    joined = groups.join(values)
    columns = {
        "norm": ops.sqrt(squared),
        "nonfinite_count": groups.collect([_count_nonfinite(v) for v in joined]),
    }
    if "zero_fraction" in names:
        zeros = groups.collect([_count_zeros(v) for v in joined])
        absent = ops.stack([ops.cast(m, "float32") for m in missing])
        sizes = ops.convert_to_tensor([count(g) for g in gradients], "float32")
        columns["zero_fraction"] = (zeros + absent) / sizes
    return ops.stack([columns[name] for name in names], axis=1)


def quick_statistics(norms, names):
    """The matrix [V, len(names)] of finite gradients of which only the norms are known.

    Args:
        norms: Tensor [V].
        names: Names of the columns; all but `norm` and `nonfinite_count` are NaN.
    """
    columns = {"norm": norms, "nonfinite_count": ops.zeros_like(norms)}
    missing = ops.zeros_like(norms) + float("nan")
    return ops.stack([columns.get(name, missing) for name in names], axis=1)


def careful_statistics(gradients, names=GRADIENT_NAMES):
    """The statistics of each gradient, whatever their magnitude.

    Args:
        gradients: List of V tensors or `SparseRows`.
        names: Which of `GRADIENT_NAMES` are wanted.

    Returns:
        Tensor [V, len(names)], float32.
    """
    values, missing = zip(*[elements(g) for g in gradients], strict=True)
    groups = Groups(values)
    sizes = ops.convert_to_tensor([count(g) for g in gradients], "float32")
    absent = ops.stack([ops.cast(m, "float32") for m in missing])
    parts = zip(
        groups.join(values),
        groups.distribute(absent),
        groups.distribute(sizes),
        strict=True,
    )
    basic = set(names) <= set(BASIC_NAMES)
    function, known = (_basic, BASIC_NAMES) if basic else (_careful, GRADIENT_NAMES)
    matrix = groups.collect([function(*part) for part in parts])
    if tuple(names) == known:
        return matrix
    return ops.take(matrix, [known.index(name) for name in names], axis=1)


def _count_nonfinite(values):
    """How many of each row of a matrix [n, k] are not finite, a tensor [n]."""
    return ops.sum(ops.cast(~ops.isfinite(values), "float32"), axis=1)


def _count_zeros(values):
    """How many of each row of a matrix [n, k] are exactly zero, a tensor [n]."""
    return ops.sum(ops.cast(ops.equal(values, 0.0), "float32"), axis=1)


def norms(gradients):
    """The L2 norm of each gradient, finite wherever the gradient is.

    Args:
        gradients: List of V tensors or `SparseRows`.

    Returns:
        Tensor [V], float32.
    """
    values = [elements(g)[0] for g in gradients]
    groups = Groups(values)
    return _all_norms(groups, groups.join(values))


def global_norm(variable_norms):
    """The norm of all gradients together: √Σ‖gᵢ‖², without overflow.

    Args:
        variable_norms: Tensor [V], float32; NaN marks a disconnected variable only
            if the caller has left it out. Non-finite norms give a non-finite result.

    Returns:
        Scalar float32.
    """
    scale = divisor(largest(variable_norms))
    total = scale * ops.sqrt(ops.sum(ops.square(variable_norms / scale)))
    every = ops.all(ops.isfinite(variable_norms))
    return ops.where(every, ops.minimum(total, FLOAT32_MAX), ops.sum(variable_norms))


def divisor(scale):
    """What to divide values of a magnitude by, so that their squares stay in range.

    Args:
        scale: Scalar, the largest magnitude.

    Returns:
        Scalar > 0; the scale itself, but 1 for 0, and never beyond `LARGEST_DIVISOR`.
    """
    return ops.where(scale > 0, ops.minimum(scale, LARGEST_DIVISOR), 1.0)


def update_statistics(old, new):
    """`weight_norm` and `update_ratio` from the weights before and after an update.

    Args:
        old: List of V tensors, the weights before.
        new: List of V tensors, the weights after.

    Returns:
        Tensor [V, 2], float32. The ratio of a variable that was all zero is +Inf if it
        moved and 0 if it did not.
    """
    groups = Groups(new)
    befores = groups.join(old)
    pairs = zip(groups.join(new), befores, strict=True)
    changes = [after - before for after, before in pairs]
    before, moved = _all_norms(groups, befores), _all_norms(groups, changes)
    still = ops.equal(moved, 0.0)
    ratio = ops.where(still, 0.0, moved / ops.where(still, 1.0, before))
    return ops.stack([before, ratio], axis=1)


def _all_norms(groups, matrices):
    """The L2 norm of each row of a list of matrices [n, k], a tensor [V]."""
    squared = groups.collect([row_squares(matrix) for matrix in matrices])

    def careful():
        return groups.collect([_careful_norms(matrix) for matrix in matrices])

    plain = ops.all(ops.isfinite(squared) & (squared > SAFE_SQUARE))
    return cond(plain, lambda: ops.sqrt(squared), outlined(careful))


def _moments(values, missing, size):
    mean = ops.sum(values, axis=1) / size
    # Two passes: E[g²] − mean² cancels where |mean| is large against the deviation.
    spread = ops.sum(ops.square(values - mean[:, None]), axis=1)
    spread = spread + missing * ops.square(mean)
    return mean, ops.sqrt(ops.maximum(spread, 0.0) / size)


def _zero_fraction(values, missing, size):
    return (_count_zeros(values) + missing) / size


def _scaled_norms(values, scale):
    scale = divisor(scale)
    root = ops.sqrt(ops.sum(ops.square(values / scale[:, None]), axis=1))
    finite = ops.isfinite(root)
    return ops.where(finite, ops.minimum(scale * root, FLOAT32_MAX), scale * root)


def _worst(values):
    """NaN for each row with a NaN, infinity for others, a tensor [n]."""
    return ops.where(ops.any(ops.isnan(values), axis=1), float("nan"), float("inf"))


@traced_once(2)
def _careful_norms(values):
    """The norm of each row of a matrix [n, k], finite wherever the row is."""
    return _scaled_norms(values, largest_of_rows(ops.abs(values)))


@traced_once(2, 1, 1)
def _basic(values, missing, size):
    """`BASIC_NAMES` of variables, a tensor [n, 3]; the arguments as in `_careful`."""
    finite = ops.isfinite(values)
    bad = _count_nonfinite(values)
    known = ops.where(finite, values, 0.0)
    norm = _scaled_norms(known, largest_of_rows(ops.abs(known)))
    norm = ops.where(bad > 0, _worst(values), norm)
    return ops.stack([norm, _zero_fraction(values, missing, size), bad], axis=1)


@traced_once(2, 1, 1)
def _careful(values, missing, size):
    """Six statistics of variables whose squares may leave float32's range.

    Args:
        values: Tensor [n, k], what is stored of n variables.
        missing: Tensor [n], how many zeros are not stored.
        size: Tensor [n], number of elements.

    Returns:
        Tensor [n, 6].
    """
    finite = ops.isfinite(values)
    bad = _count_nonfinite(values)
    scale = largest_of_rows(ops.abs(ops.where(finite, values, 0.0)))
    norm = _scaled_norms(ops.where(finite, values, 0.0), scale)
    unit = divisor(scale)
    mean, std = _moments(values / unit[:, None], missing, size)
    worst = _worst(values)
    broken = bad > 0
    columns = [
        ops.where(broken, worst, norm),
        ops.where(broken, worst, scale),
        mean * unit,
        std * unit,
        _zero_fraction(values, missing, size),
        bad,
    ]
    return ops.stack(columns, axis=1)
