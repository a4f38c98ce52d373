"""Which steps of a long run stay in its record."""

import numpy as np
import pytest

from keras_gradwatch.records.thinning import chosen

LIMIT = 200


def kept(count, events=(), sizes=None, limit=LIMIT):
    steps = np.arange(count)
    sizes = np.ones(count) if sizes is None else sizes
    return steps[chosen(steps, sizes, np.array(events, int), limit)]


def test_a_short_run_stays_whole():
    assert len(kept(LIMIT)) == LIMIT
    assert kept(0).size == 0


def test_the_end_stays_whole_and_the_rest_is_even():
    steps = kept(10_000)
    assert len(steps) <= LIMIT
    assert steps[-20:].tolist() == list(range(9980, 10_000))
    gaps = np.diff(steps[:-20])
    assert steps[0] == 0 and gaps.max() <= 128


def test_each_step_around_few_events_stays():
    steps = set(kept(10_000, [3000], limit=400).tolist())
    assert set(range(2950, 3051)) <= steps
    # The first one counts most.
    many = kept(100_000, range(1000, 90_000, 1000), limit=1000)
    assert set(range(950, 1051)) <= set(many.tolist())
    assert set(range(1000, 90_000, 1000)) <= set(many.tolist())


@pytest.mark.parametrize("events", [range(500, 10_000), range(0, 10_000, 60)])
def test_more_events_than_room(events):
    steps = kept(10_000, events)
    assert len(steps) <= LIMIT
    assert steps[-1] == 9999 and np.diff(steps).max() <= 512


def test_a_spike_stays_however_often_a_run_is_thinned_out():
    steps, sizes = np.zeros(0, int), np.zeros(0)
    for end in range(100, 20_001, 100):
        new = np.arange(end - 100, end)
        steps = np.append(steps, new)
        sizes = np.append(sizes, np.where(new == 777, 1e6, 1.0))
        sizes[steps == 4321] = np.nan
        if len(steps) > 1.5 * LIMIT:
            keep = chosen(steps, sizes, np.zeros(0, int), LIMIT)
            steps, sizes = steps[keep], sizes[keep]
    assert {777, 4321} <= set(steps.tolist())
    assert len(steps) <= 1.5 * LIMIT
