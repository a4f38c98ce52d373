"""Every policy: config round trip, bad arguments, one step of each clip by hand."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch import policies
from keras_gradwatch.policies import (
    AdaGC,
    AdaptiveGradientClip,
    AutoClip,
    Centralize,
    Chain,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    NormalizeCentered,
    Policy,
    ZClip,
)
from keras_gradwatch.tensors.sparse import SparseRows
from tests import helper
from tests.policies.replay import Replay

# Each with two configs that differ.
EVERY = [
    (ClipByGlobalNorm(2.0), ClipByGlobalNorm(3.0)),
    (ClipByNorm(1.0), ClipByNorm(2.0)),
    (ClipByValue(0.5), ClipByValue(0.6)),
    (AdaptiveGradientClip(), AdaptiveGradientClip(exclude=["head/"])),
    (AutoClip(), AutoClip(window=7)),
    (ZClip(), ZClip(robust=False)),
    (AdaGC(), AdaGC(factor=2.0)),
    (Centralize(), NormalizeCentered()),
    (NormalizeCentered(), Centralize()),
    (Chain([Centralize(), ZClip()]), Chain([ZClip(), Centralize()])),
]
every = pytest.mark.parametrize(
    ("policy", "other"), EVERY, ids=[type(p).__name__ for p, _ in EVERY]
)
CLIPS = [policy for policy, _ in EVERY[:3]]
clips = pytest.mark.parametrize("policy", CLIPS, ids=lambda p: type(p).__name__)

SMALL = np.array([0.1, -0.2], "float32")
LARGE = np.array([[3.0, -4.0], [0.0, 0.3]], "float32")


def test_the_list_is_complete():
    public = {getattr(policies, name) for name in policies.__all__} - {Policy}
    classes = {c for c in public if isinstance(c, type)}
    assert classes == {type(policy) for policy, _ in EVERY}


@every
def test_config_round_trip(policy, other):
    config = keras.saving.serialize_keras_object(policy)
    copy = keras.saving.deserialize_keras_object(config)
    assert copy == policy and copy.get_config() == policy.get_config()
    assert repr(copy) == repr(policy)
    assert copy.structure() == policy.structure() and hash(copy) == hash(policy)
    assert copy != other
    assert [p == policy for p, _ in EVERY].count(True) == 1


@every
def test_what_is_no_setting_is_in_the_structure(policy, other):
    """What is neither a variable nor part of the trace would never come into force."""
    settings = policy.settings != other.settings
    assert settings or policy.structure() != other.structure()


POSITIVE = [0, -1.0, np.nan, np.inf, None, "1", True]
SHARE = [-0.1, 1.0, np.nan, "1"]
COUNT = [0, 2.5, "3", True]
FLAG = [1, None, "yes"]


@pytest.mark.parametrize(
    ("cls", "name", "allowed", "values"),
    [
        (ClipByGlobalNorm, "global_clipnorm", "> 0", POSITIVE),
        (ClipByNorm, "clipnorm", "> 0", POSITIVE),
        (ClipByValue, "clipvalue", "> 0", POSITIVE),
        (AdaptiveGradientClip, "clipping", "> 0", POSITIVE),
        (AdaptiveGradientClip, "eps", "> 0", POSITIVE),
        (
            AdaptiveGradientClip,
            "exclude",
            "list of regular expressions",
            ["head", ["("], [1], None],
        ),
        (AutoClip, "percentile", "> 0 and < 100", [0, 100, np.nan, "10"]),
        (AutoClip, "window", ">= 1", COUNT),
        (ZClip, "z", "> 0", POSITIVE),
        (ZClip, "alpha", ">= 0 and < 1", SHARE),
        (ZClip, "warmup", ">= 2", [1, *COUNT]),
        (ZClip, "robust", "True or False", FLAG),
        (AdaGC, "factor", "> 1", [1.0, np.inf, "2"]),
        (AdaGC, "decay", ">= 0 and < 1", SHARE),
        (AdaGC, "warmup", ">= 1", COUNT),
        (AdaGC, "global_clipnorm", "> 0", POSITIVE),
        (AdaGC, "robust", "True or False", FLAG),
        (Chain, "policies", "at least one", [[], None, ZClip()]),
    ],
)
def test_bad_arguments(cls, name, allowed, values):
    for bad in values:
        with pytest.raises(ValueError) as caught:
            cls(**{name: bad})
        message = str(caught.value)
        assert message.startswith(f"{cls.__name__}: `{name}` must be"), message
        assert allowed in message and f"{name}={bad!r}" in message, message


@pytest.mark.parametrize("bad", [None, "clip", 3])
def test_a_chain_of_something_else(bad):
    with pytest.raises(TypeError, match=f"Received: .*{bad!r}"):
        Chain([ZClip(), bad])


@clips
def test_nothing_to_do(policy):
    replay = Replay(policy)
    replay([SMALL, SMALL])
    assert not replay.changed


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


@clips
@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_one_step_by_hand(policy, scale):
    gradients = [SMALL, (LARGE * scale).astype("float32")]
    replay = Replay(policy)
    changed = replay(gradients)
    assert replay.changed and replay.state == {}
    for actual, wanted in zip(changed, expected(policy, gradients), strict=True):
        np.testing.assert_allclose(actual, wanted, 1e-5, 1e-7)


@clips
def test_sparse_rows_are_changed_like_the_whole(policy):
    rows = SparseRows(ops.convert_to_tensor(LARGE), 40)
    replay = Replay(policy)
    small, changed = replay([SMALL, rows])
    assert replay.changed and changed.size == 40
    wanted = expected(policy, [SMALL, LARGE])
    np.testing.assert_allclose(small, wanted[0], 1e-5)
    np.testing.assert_allclose(changed.rows, wanted[1], 1e-5)


# JAX has no float64 unless it is told to.
DTYPES = ["float16", "bfloat16", *(["float64"] if helper.BACKEND != "jax" else [])]


@every
@pytest.mark.parametrize("dtype", DTYPES)
def test_types_and_shapes_stay(policy, other, dtype):
    replay = Replay(policy)
    dense, scalar = ops.cast(5 * LARGE, dtype), ops.cast(3.0, dtype)
    rows = SparseRows(ops.cast(LARGE, dtype), 40)
    for _ in range(3):
        changed = replay([dense, scalar, rows])
        for new, old in zip(changed, [dense, scalar, rows], strict=True):
            assert isinstance(new, SparseRows) == isinstance(old, SparseRows)
            new, old = getattr(new, "rows", new), getattr(old, "rows", old)
            assert new.dtype == old.dtype and new.shape == old.shape


@every
def test_gradients_of_zero_stay_zero(policy, other):
    replay = Replay(policy)
    zeros = np.zeros((2, 2), "float32")
    for _ in range(3):
        for gradient in replay([zeros, zeros[0], SparseRows(ops.zeros((2, 2)), 40)]):
            assert not ops.any(getattr(gradient, "rows", gradient))


@every
def test_gradients_as_large_as_float32_stay_finite(policy, other):
    replay = Replay(policy)
    huge = np.full((2, 2), 3e38, "float32")
    for sign in (1, -1, 1):
        huge[0, 0] *= sign
        for gradient in replay([huge, huge[0]]):
            assert ops.all(ops.isfinite(gradient))
        assert all(np.isfinite(value).all() for value in replay.state.values())
