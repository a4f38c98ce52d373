"""What the trust region leaves of an update, against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.train_step.trust_region import FLOOR, limit
from tests import helper


def by_hand(before, after, gradients, loss, radius, element, decrease):
    """What is left of an update, in NumPy float64; kernel and bias in turn."""
    left, root = [], None
    for old, new in zip(before, after, strict=True):
        change = (new - old).astype("float64")
        if old.ndim >= 2:
            root = max(np.sqrt((old**2).mean()), FLOOR)
        change = np.clip(change, -element * radius * root, element * radius * root)
        if old.ndim >= 2:
            norm = np.linalg.norm(change)
            change = change * min(1.0, radius * root * np.sqrt(old.size) / norm)
        left.append(change)
    gain = abs(sum((g * c).sum() for g, c in zip(gradients, left, strict=True)))
    share = min(1.0, decrease * loss / gain) if loss > 0 else 1.0
    return [old + share * change for old, change in zip(before, left, strict=True)]


def limited(before, after, gradients, loss, radius=0.1, element=2.0, decrease=3.0):
    def inner(packed, moved):
        pairs = zip(gradients, packed.split(moved), strict=True)
        return sum(ops.sum(ops.convert_to_tensor(g) * m) for g, m in pairs)

    control = {"radius": radius, "element": element, "decrease": decrease}
    weights, held = limit(
        [ops.convert_to_tensor(b) for b in before],
        [ops.convert_to_tensor(a) for a in after],
        inner,
        ops.convert_to_tensor(loss, "float32"),
        {name: ops.convert_to_tensor(value) for name, value in control.items()},
    )
    return [ops.convert_to_numpy(w) for w in weights], bool(held)


SHAPES = [(5, 4), (4,), (4, 3), (3,)]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", [1e-3, 1e6, -1.0])
def test_what_is_left_is_that_of_numpy(size, loss):
    random = np.random.default_rng(0)
    make = lambda scale: [  # noqa: E731
        (scale * random.normal(size=s)).astype("float32") for s in SHAPES
    ]
    before, gradients = make(1.0), make(3.0)
    after = [b + c for b, c in zip(before, make(size), strict=True)]
    weights, held = limited(before, after, gradients, loss, 0.05, 1.5, 2.0)
    expected = by_hand(before, after, gradients, loss, 0.05, 1.5, 2.0)
    steep = loss == 1e-3
    assert held is (size > 1e-3 or steep)
    helper.assert_same(weights, [e.astype("float32") for e in expected], 1e-5)


def test_what_is_within_stays_as_it_is():
    before = [np.ones((2, 2), "float32"), np.zeros(2, "float32")]
    after = [b + np.float32(1e-3) for b in before]
    weights, held = limited(before, after, before, 1.0)
    assert not held
    helper.assert_same(weights, after)


@pytest.mark.parametrize("loss", [np.nan, -1.0, 0.0])
def test_without_a_loss_above_zero_a_steep_update_is_within(loss):
    before = [np.ones((2, 2), "float32")]
    after = [b + np.float32(1e-3) for b in before]
    steep = [np.full((2, 2), 1e9, "float32")]
    weights, held = limited(before, after, steep, loss)
    assert not held
    helper.assert_same(weights, after)
    weights, held = limited(before, after, steep, 1.0)
    assert held and (weights[0] < after[0]).all()


def test_infinite_weights_are_held():
    before = [np.ones((2, 2), "float32")]
    after = [np.array([[np.inf, -np.inf], [np.nan, 1]], "float32")]
    weights, held = limited(before, after, before, 1.0)
    assert held and np.isfinite(weights[0]).all()
    assert weights[0][1, 0] == 1.0 and weights[0][0, 0] > 1.0 > weights[0][0, 1]


def test_weights_that_begin_at_zero_can_leave_it():
    before = [np.zeros((2, 2), "float32")]
    weights, _ = limited(before, [b + 9 for b in before], before, 1.0)
    np.testing.assert_allclose(weights[0], 0.1 * FLOOR, 1e-5)
