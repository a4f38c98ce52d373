"""Bad steps in a row: what chance explains, and what it does not."""

import numpy as np
import pytest

from keras_gradwatch.controller.responses.streak import (
    CHANCE,
    count,
    exceeds_chance,
    initial_streak,
)


def after(flags):
    memory = initial_streak()
    for bad in flags:
        count(memory, bad)
    return memory


@pytest.mark.parametrize("good", [5, 20, 200])
def test_how_long_a_streak_exceeds_chance(good):
    """By hand: the smallest n with (1 / (good + 2)) ** n < CHANCE."""
    least = int(np.ceil(np.log(CHANCE) / np.log(1 / (good + 2))))
    for n in range(1, 12):
        assert exceeds_chance(after([False] * good + [True] * n), 1) is (n >= least)


def test_a_short_row_never_is():
    assert not exceeds_chance(after([False] * 1000 + [True] * 2), 3)
    assert exceeds_chance(after([False] * 1000 + [True] * 3), 3)


@pytest.mark.parametrize("share", [0.02, 0.17, 0.5])
def test_independent_bad_batches_hardly_ever_are(share):
    random = np.random.default_rng(0)
    memory, alarms = initial_streak(), []
    for bad in random.random(20_000) < share:
        count(memory, bool(bad))
        alarms.append(bool(bad) and exceeds_chance(memory, 3))
    assert np.count_nonzero(np.diff(np.array(alarms, int)) > 0) <= 2
