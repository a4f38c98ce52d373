"""`Centralize` and `NormalizeCentered`, by hand."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.policies import Centralize, NormalizeCentered
from keras_gradwatch.tensors.sparse import SparseRows
from tests.policies import references
from tests.policies.replay import Replay

random = np.random.default_rng(3)
SHAPES = [(5,), (4, 3), (2, 3, 4), (3, 3, 2, 4)]
PAIRS = [
    (Centralize(), references.Centralize()),
    (NormalizeCentered(), references.NormalizeCentered()),
]


@pytest.mark.parametrize(("policy", "reference"), PAIRS)
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e30])
def test_equal_to_the_formula(policy, reference, scale):
    gradients = [
        (scale * (1 + random.normal(size=s))).astype("float32") for s in SHAPES
    ]
    actual = Replay(policy)(gradients)
    expected = reference([g.astype("float64") for g in gradients], None)
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-6 * np.abs(b).max())


def test_centralize_leaves_vectors_and_embeddings():
    vector = np.array([1.0, 2.0], "float32")
    rows = SparseRows(ops.ones((2, 2)), 40)
    replay = Replay(Centralize())
    actual, sparse = replay([vector, rows])
    assert not replay.changed and sparse is rows
    np.testing.assert_array_equal(actual, vector)


def test_normalize_scales_an_embedding():
    rows = SparseRows(ops.convert_to_tensor([[3.0, 4.0], [0.0, 0.0]]), 40)
    (changed,) = Replay(NormalizeCentered())([rows])
    np.testing.assert_allclose(changed.rows, [[0.6, 0.8], [0.0, 0.0]], 1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e38, 1e-30])
@pytest.mark.parametrize("shape", [(), (1,), (1000,), (33, 3)])
def test_equal_components_have_no_direction(value, shape):
    """What rounding leaves of them would otherwise be a step of full length."""
    (changed,) = Replay(NormalizeCentered())([np.full(shape, value, "float32")])
    assert not ops.any(changed)
