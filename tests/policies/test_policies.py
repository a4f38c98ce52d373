"""Every policy: config round trip, bad arguments, one hand-computed step."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch import policies
from keras_gradwatch.policies import ClipByGlobalNorm, ClipByNorm, ClipByValue, Policy
from keras_gradwatch.statistics import (
    NAMES,
    SparseRows,
    global_norm,
    gradient_statistics,
)
from tests.detectors.test_detect import measurement

EVERY = [ClipByGlobalNorm(2.0), ClipByNorm(1.0), ClipByValue(0.5)]
every = pytest.mark.parametrize("policy", EVERY, ids=lambda p: type(p).__name__)

SMALL = np.array([0.1, -0.2], "float32")
LARGE = np.array([[3.0, -4.0], [0.0, 0.3]], "float32")


def apply(policy, gradients):
    """`(changed or not, gradients)` as a step would have it."""
    tensors = [
        g if isinstance(g, SparseRows) else ops.convert_to_tensor(g) for g in gradients
    ]
    matrix = np.asarray(gradient_statistics(tensors))
    columns = dict(zip(NAMES, matrix.T, strict=False))
    count = len(gradients)
    measured = measurement(
        float(global_norm(matrix[:, 0])),
        sizes=[1] * count,
        kernels=[1] * count,
        **columns,
    )
    settings = {k: ops.convert_to_tensor(v) for k, v in policy.settings.items()}
    change, limits, state = policy.decide(measured, {}, settings)
    assert state == {}
    return bool(change), policy.transform(tensors, limits)


def test_the_list_is_complete():
    public = {getattr(policies, name) for name in policies.__all__} - {Policy}
    classes = {c for c in public if isinstance(c, type)}
    assert classes == {type(p) for p in EVERY}


@every
def test_config_round_trip(policy):
    config = keras.saving.serialize_keras_object(policy)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy == policy and copy.get_config() == policy.get_config()
    assert copy != type(policy)(77.0)
    assert [p == policy for p in EVERY].count(True) == 1


@every
@pytest.mark.parametrize("bad", [0, -1.0, np.nan, np.inf, None, "1", True])
def test_bad_arguments(policy, bad):
    cls = type(policy)
    (name,) = policy.settings
    with pytest.raises(ValueError, match=rf"{cls.__name__}: `{name}`.*> 0.*{name}="):
        cls(bad)


@every
def test_nothing_to_do(policy):
    change, _ = apply(policy, [SMALL, SMALL])
    assert not change


def expected(policy, gradients):
    """The formulas in float64."""
    gradients = [np.asarray(g, "float64") for g in gradients]
    (limit,) = policy.settings.values()
    norms = [np.sqrt((g**2).sum()) for g in gradients]
    total = np.sqrt(sum(n**2 for n in norms))
    if isinstance(policy, ClipByValue):
        return [np.clip(g, -limit, limit) for g in gradients]
    if isinstance(policy, ClipByNorm):
        return [g * min(1, limit / n) for g, n in zip(gradients, norms, strict=True)]
    return [g * min(1, limit / total) for g in gradients]


@every
@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_one_step_by_hand(policy, scale):
    gradients = [SMALL, (LARGE * scale).astype("float32")]
    change, changed = apply(policy, gradients)
    assert change
    for actual, wanted in zip(changed, expected(policy, gradients), strict=True):
        np.testing.assert_allclose(actual, wanted, 1e-5, 1e-7)


@every
def test_sparse_rows_are_changed_like_the_whole(policy):
    rows = SparseRows(ops.convert_to_tensor(LARGE), 40)
    change, (small, changed) = apply(policy, [SMALL, rows])
    assert change and changed.size == 40
    wanted = expected(policy, [SMALL, LARGE])
    np.testing.assert_allclose(small, wanted[0], 1e-5)
    np.testing.assert_allclose(changed.rows, wanted[1], 1e-5)
