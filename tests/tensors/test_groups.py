"""Tensors of equal shape are joined, and come back in their order."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.tensors.groups import Groups

pytestmark = [pytest.mark.tensorflow, pytest.mark.jax, pytest.mark.torch]

SHAPES = [(2, 3), (3,), (2, 3), (), (3,), (5, 4), (2, 3)]


def tensors():
    random = np.random.default_rng(0)
    arrays = [random.normal(size=shape).astype("float32") for shape in SHAPES]
    return arrays, [ops.convert_to_tensor(a) for a in arrays]


@pytest.mark.parametrize("most", [16_384, 5])
@pytest.mark.parametrize("least", [2, 3])
def test_there_and_back(most, least):
    arrays, given = tensors()
    groups = Groups(given, most, least)
    matrices = groups.join(given)
    together = {frozenset(places) for places in groups.places if len(places) > 1}
    expected = {frozenset({0, 2, 6}), frozenset({1, 4})}
    expected = {g for g in expected if len(g) >= least}
    expected = {g for g in expected if arrays[min(g)].size <= most}
    assert together == expected
    for array, back in zip(arrays, groups.split(matrices), strict=True):
        np.testing.assert_array_equal(np.asarray(back), array)
    sums = groups.collect([ops.sum(matrix, axis=1) for matrix in matrices])
    np.testing.assert_allclose(np.asarray(sums), [a.sum() for a in arrays], 1e-5)
    numbers = ops.convert_to_tensor(np.arange(7, dtype="float32"))
    parts = groups.distribute(numbers)
    np.testing.assert_array_equal(np.asarray(groups.collect(parts)), np.arange(7))
