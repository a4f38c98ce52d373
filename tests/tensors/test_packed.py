"""Tensors are packed into matrices, and come back; sums and maxima are of each."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.tensors.packed import ROW, Packed
from keras_gradwatch.tensors.reductions import row_squares

pytestmark = [pytest.mark.tensorflow, pytest.mark.jax, pytest.mark.torch]

SHAPES = [(2, 3), (3,), (40, 20), (), (ROW,), (5, 4), (0,), (ROW + 1,)]


def tensors():
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for shape in SHAPES]
    return arrays, [ops.convert_to_tensor(a) for a in arrays]


# All packed; all but the largest; only the tiny ones; none, since they are too few.
LIMITS = [(2**18, 2), (300, 2), (5, 2), (5, 9)]


@pytest.mark.parametrize(("most", "least"), LIMITS)
def test_there_and_back(most, least):
    arrays, given = tensors()
    packed = Packed(given, most, least)
    small = [a for a in arrays if a.size <= most]
    shared = int(len(small) >= least)
    matrices = packed.join(given)
    assert len(matrices) == shared + len(arrays) - shared * len(small)
    for array, back in zip(arrays, packed.split(matrices), strict=True):
        np.testing.assert_array_equal(np.asarray(back), array)
    elements = sum(int(np.prod(matrix.shape)) for matrix in matrices)
    assert elements == sum(a.size for a in arrays) + packed.padding.sum()


@pytest.mark.parametrize(("most", "least"), LIMITS)
def test_reductions_of_each(most, least):
    arrays, given = tensors()
    packed = Packed(given, most, least)
    matrices = packed.join(given)
    sums = packed.total([ops.sum(matrix, axis=1) for matrix in matrices])
    np.testing.assert_allclose(np.asarray(sums), [a.sum() for a in arrays], 1e-4, 1e-5)
    squares = packed.total([row_squares(matrix) for matrix in matrices])
    expected = [(a.astype("float64") ** 2).sum() for a in arrays]
    np.testing.assert_allclose(np.asarray(squares), expected, 1e-5)


def test_the_largest_of_each():
    arrays, given = tensors()
    packed = Packed(given)
    (matrix,) = packed.join(given)
    largest = packed.largest([ops.max(ops.abs(matrix), axis=1)])
    expected = [np.abs(a).max(initial=0) for a in arrays]
    np.testing.assert_array_equal(np.asarray(largest), expected)


@pytest.mark.parametrize(("most", "least"), LIMITS)
def test_a_number_for_each_row(most, least):
    arrays, given = tensors()
    packed = Packed(given, most, least)
    numbers = ops.convert_to_tensor(np.arange(len(arrays), dtype="float32"))
    rows = packed.distribute(numbers)
    together = packed.split(
        [
            ops.zeros_like(matrix) + row[:, None]
            for matrix, row in zip(packed.join(given), rows, strict=True)
        ]
    )
    for i, tensor in enumerate(together):
        np.testing.assert_array_equal(np.asarray(tensor), np.full(SHAPES[i], i))


def test_masks_leave_the_filling_out():
    arrays, given = tensors()
    packed = Packed(given)
    (mask,) = packed.masks()
    filled = packed.total([ops.sum(ops.cast(mask, "float32"), axis=1)])
    np.testing.assert_array_equal(np.asarray(filled), [a.size for a in arrays])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_with_its_tensor(bad):
    _, given = tensors()
    given[1] = given[1] + bad
    packed = Packed(given)
    (matrix,) = packed.join(given)
    finite = np.isfinite(np.asarray(packed.total([row_squares(matrix)])))
    np.testing.assert_array_equal(finite, [i != 1 for i in range(len(given))])
