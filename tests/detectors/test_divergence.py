"""A loss that stays above its best level and above its beginning."""

import numpy as np
import pytest

from keras_gradwatch.detectors import Divergence
from tests.detectors.observations import Watch


def trips(values, **arguments):
    return Watch(Divergence(**arguments)).sequence("loss", values)


def test_it_trips_once_it_lasts():
    falls = np.geomspace(2.3, 0.01, 200)
    (step,) = trips([*falls, *np.full(100, 50.0)])
    assert 219 <= step < 250
    # It comes down, and diverges again.
    twice = [*falls, *np.full(60, 50.0), *np.full(200, 0.01), *np.full(60, 50.0)]
    assert len(trips(twice)) == 2


def test_by_hand():
    watch = Watch(Divergence(factor=np.e, steps=2))
    # The mean of two logarithms, halfway from then on: 0, 0, −2, −3, then up.
    logs = [0.0, 0.0, -4.0, -4.0, 5.0, 5.0]
    expected = [0.0, 0.0, -2.0, -3.0, 1.0, 3.0]
    for log, mean in zip(logs, expected, strict=True):
        watch(loss=np.exp(log))
        np.testing.assert_allclose(watch.state["mean"], mean, atol=1e-12)
    assert watch.tripped == [5]
    np.testing.assert_allclose(watch.verdict[1:], np.exp([3.0, -3.0]))
    assert watch.detector.describe(None, 2.0, 1.0) == (
        "the loss has stayed near 2, up from 1"
    )


@pytest.mark.parametrize(
    "values",
    [
        [*np.geomspace(2.3, 1e-6, 200), *np.full(200, 1.0)],  # not above its beginning
        [*np.full(100, 1.0), 1e9, *np.full(100, 1.0)],  # one spike
        np.full(300, -5.0),
        [*np.full(100, 1.0), *np.full(100, np.nan)],
        np.random.default_rng(0).lognormal(0.0, 2.0, 800),
        np.geomspace(1e9, 1.0, 300),
    ],
)
def test_no_divergence(values):
    assert trips(values) == []


def test_a_loss_that_is_unknown_or_not_positive_changes_nothing():
    falls = [*np.geomspace(2.3, 0.01, 60), *np.full(60, 50.0)]
    watch = Watch(Divergence())
    for loss in falls:
        for value in (loss, -1.0, 0.0):
            watch(loss=value)
    (step,) = watch.tripped
    assert [step // 3] == trips(falls)
