"""No gradient in any kernel, or in nearly all of them, for some steps."""

import itertools

import numpy as np
import pytest

from keras_gradwatch.detectors import Collapse, Verdict
from tests.detectors.observations import Watch

DEAD, ALIVE = [0.0, 1.0], [1e-9, 1.0]


def test_it_trips_once_and_again_after_a_gradient():
    watch = Watch(Collapse(3), kernels=(1, 0))
    # What has never had a gradient cannot lose it.
    sequence = [DEAD] * 9 + [ALIVE] + [DEAD] * 6 + [ALIVE] + [DEAD] * 3
    assert watch.sequence("norms", sequence) == [12, 19]
    assert watch.verdict == Verdict(None, 3.0, 3.0)
    words = watch.detector.describe(None, 3.0, 3.0)
    assert words == "no gradient has reached any kernel for 3 steps"


def test_nearly_dead_and_no_better_than_before():
    """Against the rule, step by step: zeros in 3 of 6 steps, losses of 3 steps."""
    kernels, rng = (1, 0, 1), np.random.default_rng(0)
    tripped = []
    for zeros, last_loss in itertools.product((0.2, 0.4, 0.9), (0.5, 1.0, 1.5)):
        watch, best, dead, seen = Watch(Collapse(3), kernels=kernels), np.inf, [], []
        partly, expected = False, []
        losses = rng.uniform(0.9, 1.1, 60) * np.where(np.arange(60) < 20, 1, last_loss)
        for step, loss in enumerate(losses):
            dead.append(step >= 20 and rng.random() < zeros)
            seen.append(loss)
            watch(norms=[0.0 if dead[-1] else 1.0, 1.0, 1.0], loss=loss)
            level, count = np.median(seen[-3:]), sum(dead[-6:])
            if step < 2:
                continue
            if step % 3 == 2 and not count:
                best = min(best, level)
            partly = partly and count > 0
            if not partly and count >= 3 and level >= 0.9 * best:
                expected.append(step)
                partly = True
        assert watch.tripped == expected
        tripped.append(bool(expected))
    # Not if the loss is lower than before.
    assert tripped[6:] == [False, True, True]
    words = watch.detector.describe(None, 3.0, 6.0)
    assert (
        words
        == "in 3 of 6 steps, no gradient has reached the kernels before the last one"
    )


def test_kernels_that_have_never_had_a_gradient_are_not_counted():
    """As where `stop_gradient` excludes the first layers."""
    watch = Watch(Collapse(3), kernels=(1, 0, 1))
    watch(20, norms=[0.0, 1.0, 1.0])
    assert watch.tripped == []
    watch(1, norms=[1.0, 1.0, 1.0])
    watch(4, norms=[0.0, 1.0, 1.0])
    assert watch.tripped == [23]


def test_zeros_that_are_as_frequent_from_the_start_do_not_count():
    """As in a small ReLU network with a batch size of 1."""
    watch, rng = Watch(Collapse(3), kernels=(1, 0, 1)), np.random.default_rng(0)
    watch(1)
    for _ in range(300):
        watch(norms=[float(rng.random() < 0.4), 1.0, 1.0])
    assert watch.tripped == []


def test_one_death_is_told_once():
    watch = Watch(Collapse(3), kernels=(1, 0, 1))
    watch(6)
    watch(3, norms=[0.0, 1.0, 1.0])
    watch(9, norms=[0.0, 1.0, 0.0])
    assert watch.tripped == [8]
    watch(6)  # the gradient is back
    watch(3, norms=[0.0, 1.0, 0.0])
    assert watch.tripped == [8, 26]


def test_another_fit_has_another_loss():
    watch = Watch(Collapse(3), kernels=(1, 0, 1))
    watch(6, loss=0.01)
    watch.detector.begin_fit(watch.state)
    watch(6, norms=[0.0, 1.0, 1.0])
    assert watch.tripped == []


def test_without_a_loss_only_all_kernels_count():
    watch = Watch(Collapse(3), kernels=(1, 0, 1))
    watch(9, loss=-1.0)
    watch(9, norms=[0.0, 1.0, 1.0], loss=-1.0)
    assert watch.tripped == []
    watch(3, norms=[0.0, 1.0, 0.0], loss=-1.0)
    assert watch.tripped == [20]


@pytest.mark.parametrize(
    ("norms", "global_norm", "kernels"),
    [
        ([0.0, 0.0], 0.0, (1, 0)),  # a loss that is satisfied has no gradient at all
        ([np.nan, 1.0], 1.0, (1, 0)),  # the kernel is disconnected
        ([0.0, 1.0], 1.0, (0, 0)),  # there is no kernel
        ([1.0, 0.0], 1.0, (1, 1)),  # another kernel has a gradient
    ],
)
def test_what_is_no_collapse(norms, global_norm, kernels):
    watch = Watch(Collapse(3), kernels=kernels)
    watch(1, norms=[1.0, 1.0])
    watch(9, norms=norms, global_norm=global_norm)
    assert watch.tripped == []
