"""`Chain`: each policy sees what the one before it made."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.policies import (
    AdaptiveGradientClip,
    Centralize,
    Chain,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    ZClip,
)
from keras_gradwatch.tensors.sparse import SparseRows
from tests.policies import references
from tests.policies.replay import Replay

random = np.random.default_rng(5)


def gradients(scale=1.0):
    shapes = [(4, 3), (3,), (2, 3)]
    return [(scale * (1 + random.normal(size=s))).astype("float32") for s in shapes]


def test_one_after_the_other():
    chain = Chain([Centralize(), ClipByNorm(1.5), ClipByGlobalNorm(2.0)])
    given = gradients()
    one, two = Replay(Centralize()), Replay(ClipByNorm(1.5))
    expected = Replay(ClipByGlobalNorm(2.0))(two(one(given)))
    for a, b in zip(Replay(chain)(given), expected, strict=True):
        np.testing.assert_allclose(a, b, 1e-6)
    # Another order is another policy.
    other = Replay(Chain([ClipByGlobalNorm(2.0), ClipByNorm(1.5), Centralize()]))
    assert not np.allclose(other(given)[0], expected[0], 1e-3)


def test_statistics_are_those_of_the_changed_gradients():
    """Their details, too: `ClipByValue` reads the largest magnitude."""
    large = [np.array([8.0, 0.1], "float32")]
    replay = Replay(Chain([ClipByValue(2.0), ClipByValue(1.0), ClipByNorm(3.0)]))
    (changed,) = replay(large)
    np.testing.assert_allclose(changed, [1.0, 0.1], 1e-6)
    replay = Replay(Chain([ClipByValue(0.5), ClipByGlobalNorm(1.0)]))
    (changed,) = replay(large)
    np.testing.assert_allclose(changed, [0.5, 0.1], 1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_unchanged_by_one_member(first):
    members = [ClipByGlobalNorm(1e6), ClipByNorm(0.5)]
    replay = Replay(Chain(members if first else members[::-1]))
    given = gradients()
    changed = replay(given)
    expected = Replay(ClipByNorm(0.5))(given)
    for a, b in zip(changed, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert replay.changed
    small = gradients(1e-3)
    for a, b in zip(replay(small), small, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not replay.changed


def test_each_member_has_its_own_memory():
    """Two of one class, and a chain in a chain."""
    chain = Chain([ZClip(warmup=5), Chain([ZClip(0.5, warmup=5), Centralize()])])
    sizes = np.exp(random.normal(0, 0.3, 60))
    sizes[[20, 40]] *= 30
    reference = references.Chain(
        references.ZClip(warmup=5), references.ZClip(0.5, warmup=5)
    )
    replay = Replay(chain)
    for size in sizes:
        step = [np.array([size], "float32")]
        (actual,), (expected,) = replay(step), reference(step, None)
        np.testing.assert_allclose(actual, expected, 1e-5)
    means = [v for name, v in replay.state.items() if name.endswith("mean")]
    assert len(means) == 2 and means[0] != means[1]
    assert len(chain.settings) == 4


def test_the_same_policy_twice():
    twice = ClipByValue(1.0)
    (changed,) = Replay(Chain([twice, Centralize(), twice]))([[[4.0], [1.0], [-9.0]]])
    centered = np.array([[1.0], [1.0], [-1.0]]) - 1 / 3
    np.testing.assert_allclose(changed, np.clip(centered, -1, 1), 1e-6)


def test_rows_and_weights():
    rows = SparseRows(ops.convert_to_tensor([[3.0, 4.0], [0.0, 0.0]]), 10)
    weights = [np.ones((5, 2), "float32"), np.ones((3, 2), "float32")]
    kernel = random.normal(size=(3, 2)).astype("float32")
    chain = Chain([ClipByGlobalNorm(1.0), Centralize(), AdaptiveGradientClip()])
    sparse, dense = Replay(chain, weights)([rows, kernel])
    whole = np.zeros((5, 2))
    whole[0] = [3.0, 4.0]
    expected = references.Chain(
        references.GlobalNorm(1.0),
        references.Centralize(sparse=[0]),
        references.AdaptiveGradientClip(),
    )([whole, kernel], weights)
    np.testing.assert_allclose(sparse.rows[0], expected[0][0], 1e-5)
    np.testing.assert_allclose(dense, expected[1], 1e-5)
