"""Gradients that vanish: reported once at the onset, and again after it was gone."""

import numpy as np
import pytest

from keras_gradwatch.detectors import Vanishing
from tests.detectors.observations import Watch

HEALTHY = [0.5, 0.1, 0.5, 0.1, 0.5, 0.1]
GONE = [1e-6, 1e-6, 1e-3, 1e-3, 0.5, 0.1]


def test_it_is_reported_once_and_names_the_first_kernel():
    watch = Watch(Vanishing(patience=5))
    watch(100, norms=GONE)
    assert watch.tripped == [4]
    variable, value, baseline = watch.verdict
    assert variable == 0
    np.testing.assert_allclose([value, baseline], [1e-6, 0.5], 1e-5)
    words = watch.detector.describe("dense/kernel", value, baseline)
    assert "dense/kernel" in words and "1e-06" in words and "0.5" in words


def test_later_and_again():
    watch = Watch(Vanishing(decay=0.5, patience=5))
    watch(50, norms=HEALTHY)
    watch(50, norms=GONE)
    # The mean halves with each step, 0.5 · 2⁻¹³ is below 1e-4; it counts at the fifth.
    assert watch.tripped == [50 + 12 + 4]
    watch = Watch(Vanishing(decay=0, patience=5))
    watch(30, norms=GONE)
    watch(4, norms=HEALTHY)  # short of `patience`: still the same condition
    watch(30, norms=GONE)
    assert len(watch.tripped) == 1
    watch(30, norms=HEALTHY)
    watch(30, norms=GONE)
    assert len(watch.tripped) == 2


@pytest.mark.parametrize(
    "norms",
    [
        [1e-6, 0, 1e-5, 0, 1e-6, 0],  # converged: small everywhere
        [1e-9, 0, 1e-7, 0, 1e-5, 0],
        [0.002, 0, 1, 0, 50, 0],  # a small share of a large gradient
        [5e-5, 0, 1, 0, 0.01, 0],  # small, but not against the last one
        [0, 0, 0, 0, 0, 0],
    ],
)
def test_what_is_no_vanishing(norms):
    watch = Watch(Vanishing(patience=3))
    watch(100, norms=norms, global_norm=float(np.linalg.norm(norms)))
    assert watch.tripped == []


def test_steps_that_are_not_finite_change_nothing():
    watch = Watch(Vanishing(patience=5))
    watch(3, norms=GONE)
    watch(9, norms=[np.nan] * 6, global_norm=np.nan)
    watch(9, norms=[np.nan] * 6, global_norm=1.0)  # part of an accumulation window
    watch(1, norms=GONE)
    assert watch.tripped == []
    watch(1, norms=GONE)
    assert watch.tripped == [22]


def test_single_batches_without_a_gradient():
    watch = Watch(Vanishing())
    random = np.random.default_rng(0)
    for dead in random.uniform(size=400) < 0.7:
        watch(norms=[0, 0, 0, 0, 0.5, 0.1] if dead else HEALTHY)
    assert watch.tripped == []


def test_disconnected_and_single_kernels():
    watch = Watch(Vanishing(patience=3))
    watch(9, norms=[np.nan, np.nan, 1e-6, 1e-6, 0.5, 0.1])
    assert watch.tripped == [2] and watch.verdict.variable == 2
    watch = Watch(Vanishing(patience=3), kernels=(1, 0))
    watch(9, norms=[1e-6, 0.5])
    assert watch.tripped == []


def test_the_means_are_weighted_averages():
    norms = np.random.default_rng(0).lognormal(size=(40, 3))
    watch = Watch(Vanishing(decay=0.8), kernels=(1, 0, 1))
    watch.sequence("norms", norms)
    new = np.maximum(1 / np.arange(1, 41), 0.2)
    weights = new * np.append(np.cumprod((1 - new)[:0:-1])[::-1], 1.0)
    expected = np.average(norms, axis=0, weights=weights)
    means = [watch.state["first"], watch.state["last"]]
    np.testing.assert_allclose(means, expected[[0, 2]], rtol=1e-12)


def test_it_cannot_be_enforced_within_a_step():
    assert Vanishing().limits(Vanishing().initial_state(3)) == {}
