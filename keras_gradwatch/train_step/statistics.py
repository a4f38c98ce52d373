"""From gradients to a matrix of statistics: pure functions on `keras.ops`.

Every statistic is float32, whatever the dtype of the gradient, and of the gradient
that the optimizer works with: summed over replicas and unscaled.
"""

from typing import NamedTuple

from keras import ops

from keras_gradwatch.backends.branch import cond, outlined, traced_once
from keras_gradwatch.backends.reductions import (
    largest,
    largest_of_rows,
    row_squares,
    sums_of_squares,
)
from keras_gradwatch.train_step.groups import Groups

NAMES = (
    "norm",
    "max_abs",
    "mean",
    "std",
    "zero_fraction",
    "nonfinite_count",
    "weight_norm",
    "update_ratio",
)
"""The columns of the matrix, in order.

| name | of one variable with gradient g, weights w, and update Δw | unit |
|---|---|---|
| `norm` | ‖g‖₂ | gradient |
| `max_abs` | max |gᵢ| | gradient |
| `mean` | mean gᵢ | gradient |
| `std` | population standard deviation of gᵢ | gradient |
| `zero_fraction` | share of gᵢ that are exactly 0 | 0 to 1 |
| `nonfinite_count` | number of gᵢ that are NaN or ±Inf | count |
| `weight_norm` | ‖w‖₂ before the update | weight |
| `update_ratio` | ‖Δw‖₂ / ‖w‖₂ of the update that was made | ratio |

`norm` and `nonfinite_count` are measured at every step. The others cost further passes
over the gradients, or over the weights, and are sampled: every `sample_freq`-th step
from the first, and in any step with a gradient that is not finite.
"""

GRADIENT_NAMES = NAMES[:6]

FLOAT32_MAX = 3.4028235e38
# The reciprocal of what is larger is denormal, and XLA divides by multiplying with it.
LARGEST_DIVISOR = 1e37
# Below this, squares of float32 values are denormal or have vanished.
SAFE_SQUARE = 1e-30

# Up to so many elements, gradients are copied together to take fewer operations.
COPIED = 4096
# As long as there are so many.
MANY = 16


class SparseRows(NamedTuple):
    """A gradient of which only some rows are not zero (an embedding's).

    Attributes:
        rows: Tensor [n, ...], each row of the gradient once (all-zero rows allowed).
        size: Number of elements of the whole gradient, zero rows included.
    """

    rows: object
    size: int


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
    groups = Groups(values, most=COPIED, least=MANY)
    if len(groups.places) == len(values):
        return sums_of_squares(values)
    return groups.collect([row_squares(matrix) for matrix in groups.join(values)])


def judge_squares(squares):
    """Whether norms can be had from sums of squares, and the global norm if so.

    Args:
        squares: Tensor [V], the sum of squares of each gradient.

    Returns:
        `(plain, norm)`: scalar bool, whether all gradients and their global norm are
        finite, and none is so small that its squares have vanished; √Σ squares.
    """
    # Squares between 0 and this are denormal, or the rest of what has vanished.
    well = (squares > SAFE_SQUARE) | ops.equal(squares, 0.0)
    norm = ops.sqrt(ops.sum(squares))
    return ops.all(well) & ops.isfinite(norm), norm


def measure(gradients, detailed=True):
    """The first six statistics of each gradient, and the global norm.

    One pass over the gradients gives the norms, and shows whether anything is wrong.
    Only then, and where details are asked for, a second look takes the rest. So the
    norm of finite gradients is finite: where a plain sum of squares leaves float32's
    range, that second look divides by the largest magnitude first.

    Args:
        gradients: List of V tensors or `SparseRows`, of any float dtype.
        detailed: Scalar bool, whether all six are wanted.

    Returns:
        `(matrix, norm)`: a tensor [V, 6], float32, columns as in `GRADIENT_NAMES`, and
        the global norm, a scalar. Without `detailed`, while all is well, only `norm`
        and `nonfinite_count` are there, the others are NaN; and a norm below 1e-22 may
        be given as 0.
    """
    values, missing = zip(*[elements(g) for g in gradients], strict=True)
    squared = squares(gradients)
    plain, total = judge_squares(squared)

    def quick():
        missing = ops.zeros((len(values), 4), "float32") + float("nan")
        norm = ops.sqrt(squared)[:, None]
        matrix = ops.concatenate([norm, missing, ops.zeros_like(norm)], axis=1)
        return [matrix, total]

    def careful():
        groups = Groups(values)
        sizes = ops.convert_to_tensor([count(g) for g in gradients], "float32")
        absent = ops.stack([ops.cast(m, "float32") for m in missing])
        parts = zip(
            groups.join(values),
            groups.distribute(absent),
            groups.distribute(sizes),
            strict=True,
        )
        matrix = groups.collect([_careful(*part) for part in parts])
        return [matrix, global_norm(matrix[:, 0])]

    return cond(plain & ~ops.cast(detailed, "bool"), quick, outlined(careful))


def gradient_statistics(gradients, detailed=True):
    """The matrix of `measure`, [V, 6]."""
    return measure(gradients, detailed)[0]


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
    zeros = ops.sum(ops.cast(ops.equal(values, 0.0), "float32"), axis=1)
    return (zeros + missing) / size


def _scaled_norms(values, scale):
    scale = divisor(scale)
    root = ops.sqrt(ops.sum(ops.square(values / scale[:, None]), axis=1))
    finite = ops.isfinite(root)
    return ops.where(finite, ops.minimum(scale * root, FLOAT32_MAX), scale * root)


@traced_once(2)
def _careful_norms(values):
    """The norm of each row of a matrix [n, k], finite wherever the row is."""
    return _scaled_norms(values, largest_of_rows(ops.abs(values)))


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
    bad = ops.sum(ops.cast(~finite, "float32"), axis=1)
    scale = largest_of_rows(ops.abs(ops.where(finite, values, 0.0)))
    norm = _scaled_norms(ops.where(finite, values, 0.0), scale)
    unit = divisor(scale)
    mean, std = _moments(values / unit[:, None], missing, size)
    has_nan = ops.any(ops.isnan(values), axis=1)
    worst = ops.where(has_nan, float("nan"), float("inf"))
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
