"""Against optax, and what optax does not have: names, and rows of an embedding."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from keras import ops

from keras_gradwatch.policies import AdaptiveGradientClip
from keras_gradwatch.tensors.sparse import SparseRows
from tests.policies import references
from tests.policies.replay import Replay

random = np.random.default_rng(2)
SHAPES = [(), (5,), (1,), (4, 3), (4, 1), (1, 4), (3, 2, 5), (3, 3, 2, 4)]


def arrays(shapes, scale=1.0):
    return [random.normal(0, scale, s).astype("float32") for s in shapes]


def theirs(clipping, gradients, weights):
    """What optax makes of them; for three axes it has to be told which are a unit's."""
    changed = []
    for g, w in zip(gradients, weights, strict=True):
        axes = (0, 1) if g.ndim == 3 else None
        clip = optax.adaptive_grad_clip(clipping, axis=axes)
        changed += clip.update([jnp.asarray(g)], clip.init([w]), [w])[0]
    return changed


@pytest.mark.parametrize("clipping", [0.01, 0.3, 10.0])
def test_equal_to_optax(clipping):
    weights, gradients = arrays(SHAPES), arrays(SHAPES, 0.4)
    weights[1][:] = 0  # the floor
    weights[3][:, 1] = 0
    gradients[6][..., 2] = 0
    replay = Replay(AdaptiveGradientClip(clipping), weights)
    actual = replay(gradients)
    for a, b in zip(actual, theirs(clipping, gradients, weights), strict=True):
        np.testing.assert_allclose(a, b, 1e-5, 1e-9)
    assert replay.changed


def test_unchanged_gradients_are_the_very_same():
    gradients, replay = arrays(SHAPES, 1e-6), Replay(AdaptiveGradientClip())
    for a, b in zip(replay(gradients), gradients, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not replay.changed


def test_squares_that_overflow():
    weights, gradients = arrays([(4, 3)]), [g * 1e30 for g in arrays([(4, 3)])]
    (actual,) = Replay(AdaptiveGradientClip(), weights)(gradients)
    reference = references.AdaptiveGradientClip()
    (expected,) = reference([gradients[0].astype("float64")], weights)
    np.testing.assert_allclose(actual, expected, 1e-5)


def test_rows_of_an_embedding_are_clipped_like_the_whole():
    weights = arrays([(9, 3)])
    whole = np.zeros((9, 3), "float32")
    whole[[2, 7]] = random.normal(size=(2, 3))
    # A third row is free: no row of the batch.
    rows = np.concatenate([whole[[2, 7]], np.zeros((1, 3), "float32")])
    sparse = SparseRows(ops.convert_to_tensor(rows), 27)
    (actual,) = Replay(AdaptiveGradientClip(), weights)([sparse])
    (expected,) = references.AdaptiveGradientClip()([whole], weights)
    assert actual.size == 27
    np.testing.assert_allclose(actual.rows[:2], expected[[2, 7]], 1e-5)
    assert not ops.any(actual.rows[2])


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ((), []),
        (["head/"], [2, 3]),
        (["bias$"], [1, 3]),
        (["^dense/kernel$", "head/bias"], [0, 3]),
        (["nowhere"], []),
    ],
)
def test_what_is_excluded(exclude, left):
    names = ["dense/kernel", "dense/bias", "head/kernel", "head/bias"]
    gradients = arrays([(4, 3), (3,), (3, 2), (2,)])
    policy = AdaptiveGradientClip(exclude=exclude)
    changed = Replay(policy, arrays([g.shape for g in gradients]), names)(gradients)
    same = [
        i
        for i, (a, b) in enumerate(zip(changed, gradients, strict=True))
        if np.array_equal(a, b)
    ]
    assert same == left
