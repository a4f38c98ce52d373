"""A loss that swings with every step: reported once at the onset."""

import numpy as np
import pytest

from keras_gradwatch.detectors import Oscillation
from tests.detectors.observations import Watch


def trips(losses, **kwargs):
    watch = Watch(Oscillation(**kwargs))
    for loss in losses:
        watch(loss=float(loss))
    return watch.tripped


def test_it_is_reported_once():
    swing = [1.0, 2.0] * 60
    assert len(trips(swing)) == 1
    steady = np.linspace(2.0, 0.1, 200)
    assert trips(steady) == []
    found = trips([*steady, *swing])
    assert len(found) == 1 and found[0] > 200
    assert len(trips([*swing, *steady, *steady, *swing])) == 2


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_noise_is_no_oscillation(scale):
    noise = np.exp(scale * np.random.default_rng(0).normal(size=2000))
    assert trips(noise) == []


def test_small_swings_are_no_oscillation():
    assert trips([1.0, 1.05] * 60) == []
    assert len(trips([1.0, 1.05] * 60, amplitude=0.01)) == 1


def test_losses_that_are_not_finite_or_huge_change_nothing():
    swing = [1.0, 2.0] * 60
    broken = [x for pair in swing for x in (pair, np.nan, np.inf, 1e30)]
    assert len(trips(broken)) == 1


def test_the_formula():
    """ρ and the amplitude from whole sequences, with exponential weights."""
    random = np.random.default_rng(0)
    losses = np.tile([1.0, 1.3], 60) + 0.1 * random.normal(size=120)
    watch = Watch(Oscillation(limit=0.8, amplitude=0.2, decay=0.9, patience=1))
    holds = []
    for step in range(len(losses)):
        watch(loss=losses[step])
        weights = 0.1 * 0.9 ** np.arange(step, -1, -1)
        change = np.diff(losses[: step + 1], prepend=losses[0])
        before = np.append(0.0, change[:-1])
        square = weights @ (change**2 + before**2) / 2
        size = weights @ np.abs(losses[: step + 1])
        rho = weights @ (change * before) / max(square, 1e-300)
        holds.append(step >= 2 and rho < -0.8 and np.sqrt(square) > 0.2 * size)
        np.testing.assert_allclose(watch.state["square"], square, rtol=1e-9)
    onsets = [i for i in range(1, 120) if holds[i] and not holds[i - 1]]
    assert watch.tripped == onsets and len(onsets) > 1
