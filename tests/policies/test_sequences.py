"""The policies with a memory, over sequences of norms: as published, and sounder."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.policies import AdaGC, AutoClip, ZClip
from tests.policies import references
from tests.policies.replay import Replay


def long(policy):
    return Replay(policy, traced=True)


random = np.random.default_rng(4)
# A falling norm with noise, and a few spikes.
CLEAN = np.exp(random.normal(0, 0.3, 160)) * np.linspace(3, 1, 160)
SPIKES = [70, 71, 120]
SPIKED = CLEAN.copy()
SPIKED[SPIKES] *= 50

PAIRS = {
    "auto": (AutoClip(), references.AutoClip()),
    "auto_window": (AutoClip(50.0, window=40), references.AutoClip(50.0, window=40)),
    "z": (ZClip(), references.ZClip()),
    "z_other": (ZClip(2.0, 0.9, 10), references.ZClip(2.0, 0.9, 10)),
    "z_published": (ZClip(robust=False), references.ZClip()),
    "ada_loose": (
        AdaGC(warmup=40, global_clipnorm=50.0),
        references.AdaGC(warmup=40, global_clipnorm=50.0),
    ),
    "ada_other": (
        AdaGC(1.5, 0.9, 30, global_clipnorm=3.0),
        references.AdaGC(1.5, 0.9, 30, 3.0),
    ),
    "ada_published": (
        AdaGC(warmup=40, robust=False),
        references.AdaGC(warmup=40),
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_the_paper(name):
    """To the rounding of float32, over 160 steps with three variables."""
    policy, reference = PAIRS[name]
    replay, changes = long(policy), 0
    for size in SPIKED:
        shares = random.uniform(0.5, 1.5, 3) * [3, 1, 2]
        directions = [random.normal(0, 1, s) for s in [(4, 3), (3,), (2, 2, 2)]]
        gradients = [
            (size * p * d).astype("float32")
            for p, d in zip(shares, directions, strict=True)
        ]
        actual = replay(gradients)
        changes += replay.changed
        for a, b in zip(actual, reference(gradients, None), strict=True):
            np.testing.assert_allclose(a, b, 1e-5)
    assert changes >= len(SPIKES)


MEMORIES = [AutoClip(90.0, window=50), ZClip(), AdaGC(warmup=40, global_clipnorm=10.0)]
each = pytest.mark.parametrize("policy", MEMORIES, ids=lambda p: type(p).__name__)


def highest(norms, steps):
    return np.max(norms[steps])


@each
def test_what_is_not_finite_is_not_taken_in(policy):
    with_bad = np.insert(SPIKED, [0, 20, 100], [np.nan, np.inf, np.nan])
    replay, clean = long(policy), long(policy)
    actual, expected = replay.norms(with_bad), clean.norms(SPIKED)
    assert np.isfinite(np.concatenate([*map(np.ravel, replay.state.values())])).all()
    np.testing.assert_array_equal(actual[np.isfinite(with_bad)], expected)
    assert highest(expected, SPIKES) < 6 < highest(SPIKED, SPIKES)


@pytest.mark.thorough
@each
@pytest.mark.parametrize(("place", "spike"), [(0, 1e38), (3, 1e6), (24, 1e6)])
def test_a_spike_in_the_warm_up_ruins_nothing(policy, place, spike):
    values = SPIKED.copy()
    values[place] = spike
    actual = long(policy).norms(values)
    # Both spikes long after it are clipped, to what they would be without, or nearly.
    assert highest(actual, SPIKES) < 10
    # What is no spike is clipped no more than without it.
    calm = np.delete(np.arange(60, 160), np.array(SPIKES) - 60)
    without = long(policy).norms(SPIKED)
    assert (actual[calm] > 0.8 * without[calm]).all()


def test_the_published_rule_is_ruined_by_it():
    """Which shows that the test before this one can fail."""
    values = SPIKED.copy()
    values[3] = 1e6
    actual = long(ZClip(robust=False)).norms(values)
    assert highest(actual, SPIKES) > 50


# Steps until a lasting shift is taken in, at most.
BOUNDS = [(AutoClip(window=50), 50), (ZClip(), 25), (AdaGC(warmup=40), 25)]


@pytest.mark.thorough
@pytest.mark.parametrize(("policy", "bound"), BOUNDS, ids=["auto", "z", "ada"])
@pytest.mark.parametrize("shift", [1e3, 1e-3])
def test_a_lasting_shift_is_taken_in(policy, bound, shift):
    values = np.exp(random.normal(0, 0.2, 200))
    values[80:] *= shift
    values[-1] *= 100
    actual = long(policy).norms(values)
    settled = slice(80 + bound, 199)
    # Not clipped to much less than on the old scale.
    share = actual / values
    assert np.median(share[settled]) > 0.5 * np.median(share[60:80])
    assert actual[-1] < 4 * shift  # a spike of the new level is one


def test_a_shift_by_less_is_taken_in_by_the_published_rule():
    """By 0.8% a step: of 9 times, in ln 9 / 0.008 = 276 steps."""
    values = np.ones(330)
    values[40:] = 9.0
    actual = long(AdaGC(decay=0.84, warmup=40)).norms(values)
    assert actual[50] < 1.2 and actual[290] < 9
    np.testing.assert_allclose(actual[-10:], 9, 1e-6)


@pytest.mark.parametrize("policy", [ZClip(robust=False), AdaGC(robust=False)])
def test_the_published_rule_does_not_take_it_in(policy):
    values = np.ones(260)
    values[:200] += random.normal(0, 0.1, 200)
    values[200:] = 1e3
    assert (long(policy).norms(values)[200:] < 2).all()


@pytest.mark.parametrize("first", [0.0, 1e-9])
def test_a_gradient_of_zero_in_the_warm_up(first):
    """As a LoRA factor has it behind one that begins at zero, or nearly."""
    ones = [np.ones(3, "float32"), np.ones(2, "float32")]
    steps = [ones, [ones[0], np.float32(first) * ones[1]], *([ones] * 50)]
    robust = long(AdaGC(warmup=5, global_clipnorm=9.0))
    published = long(AdaGC(warmup=5, global_clipnorm=9.0, robust=False))
    for step in steps:
        _, gradient = robust(step)
        _, lost = published(step)
    assert ops.min(gradient) > 0.1 and ops.max(lost) < 1e-7


def test_percentiles_are_those_of_numpy():
    values = np.exp(random.normal(0, 1, 30))
    for percentile in (0.5, 37.0, 99.5):
        limits = long(AutoClip(percentile, window=11)).norms(values)
        for step, value in enumerate(values):
            recent = values[max(0, step - 10) : step + 1]
            limit = min(value, np.percentile(recent, percentile))
            np.testing.assert_allclose(limits[step], limit, 1e-6)
