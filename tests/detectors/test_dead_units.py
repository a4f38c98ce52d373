"""Units without a gradient: reported once at the onset, counted in samples."""

import numpy as np
import pytest

from keras_gradwatch.detectors import DeadUnits
from tests.detectors.observations import Watch

DEAD = [1, 1, 1, 0.6, 0.6, 0]


def test_it_is_reported_once_and_names_the_dead_layer():
    watch = Watch(DeadUnits(0.7, apart=1, patience=3))
    watch(100, zero_fraction=DEAD)
    assert watch.tripped == [2] and watch.verdict.variable == 1
    # Of the 20 hidden units 10 and 6; the outputs are none.
    np.testing.assert_allclose(watch.verdict.value, 0.8)
    words = watch.detector.describe("dense/bias", 0.8, 0.7)
    assert words.startswith("80% of the units get no gradient")
    assert words.endswith("and the gradient of dense/bias is exactly 0")


def test_it_is_counted_in_samples():
    watch = Watch(DeadUnits(apart=10, patience=3))
    for _ in range(3):
        watch(1, zero_fraction=DEAD)
        watch(49)
    assert watch.tripped == [100]
    watch = Watch(DeadUnits(apart=10, patience=3))
    watch(100, zero_fraction=DEAD)
    assert watch.tripped == [20]


def test_it_is_reported_again():
    watch = Watch(DeadUnits(apart=1, patience=3))
    watch(9, zero_fraction=DEAD)
    watch(2, zero_fraction=[0] * 6)
    watch(9, zero_fraction=DEAD)
    assert len(watch.tripped) == 1
    watch(3, zero_fraction=[0] * 6)
    watch(9, zero_fraction=DEAD)
    assert len(watch.tripped) == 2


@pytest.mark.parametrize(
    "zeros",
    [
        [1, 0, 1, 0, 1, 0],  # kernels: zero inputs, rows of an embedding
        [1, 0.9, 1, 0.9, 1, 0],  # single samples: most ReLUs are off, no layer wholly
        [1, 1, 1, 0.1, 0, 0],  # a layer without a gradient among healthy ones
        [0, 0, 0, 0, 0, 1],  # the outputs
    ],
)
def test_what_is_no_dead_network(zeros):
    watch = Watch(DeadUnits(apart=1, patience=1))
    watch(20, zero_fraction=zeros)
    assert watch.tripped == []


def test_samples_that_say_nothing_are_left_out():
    watch = Watch(DeadUnits(apart=1, patience=2))
    watch(1, zero_fraction=DEAD)
    watch(5)  # not sampled
    watch(5, zero_fraction=[1] * 6, global_norm=0.0)  # a batch that is fitted
    watch(5, zero_fraction=[0] * 6, global_norm=np.nan)
    watch(1, zero_fraction=DEAD)
    assert watch.tripped == [16]
    watch = Watch(DeadUnits(apart=1, patience=1), kernels=(1, 1, 1))
    watch(5, zero_fraction=[1, 1, 1])  # no biases
    assert watch.tripped == []
