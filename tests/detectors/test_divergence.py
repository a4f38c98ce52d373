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
    assert 250 <= step < 265
    # It comes down, and diverges again.
    twice = [*falls, *np.full(90, 50.0), *np.full(200, 0.01), *np.full(90, 50.0)]
    assert len(trips(twice)) == 2


def test_by_hand():
    """Medians of four losses: 1, then e⁻⁴, and from the tenth loss on more than 1."""
    logs = [0.0] * 4 + [-4.0] * 4 + [5.0] * 8
    watch = Watch(Divergence(factor=np.e, steps=2))
    assert watch.sequence("loss", np.exp(logs)) == [12]
    np.testing.assert_allclose(watch.verdict[1:], np.exp([5.0, -4.0]))
    assert watch.detector.describe(None, 2.0, 1.0) == (
        "the loss has stayed near 2, up from 1"
    )


def test_far_above_the_initial_level():
    """A loss that was never much better than at its start, by hand."""
    values = [1.0, 2.0, 1.5, 1.8, *[6.0] * 30]  # median of the first four: 1.65
    watch = Watch(Divergence(factor=9.0, steps=4))
    # From the ninth loss on, the median of eight is above 1.65 · √9, eight times.
    assert watch.sequence("loss", values) == [15]
    # Not above the largest of the first losses.
    assert trips([1.0, 7.0, 1.5, 1.8, *[6.0] * 30], factor=9.0, steps=4) == []
    assert trips([1.0, 2.0, 1.5, 1.8, *[4.9] * 30], factor=9.0, steps=4) == []


def test_a_run_that_recovers_by_itself_has_not_diverged():
    falls = np.geomspace(2.3, 0.01, 200)
    recovers = [*falls, *np.geomspace(500.0, 0.01, 200)]
    assert trips(recovers) == []
    # It falls at first, and then it stays.
    stays = [*falls, *np.geomspace(500.0, 50.0, 60), *np.full(100, 50.0)]
    assert len(trips(stays)) == 1


def test_rare_large_losses_are_not_the_level():
    """A quarter of the losses, as when batches with rare targets come together."""
    values = np.random.default_rng(0).lognormal(0.0, 0.3, 600)
    values[300::4] *= 1e4
    assert trips(values) == []


@pytest.mark.parametrize("place", [slice(0, 1), slice(50, 51), slice(200, 230)])
def test_an_explosion_does_not_hide_a_later_divergence(place):
    values = np.array([*np.geomspace(2.3, 0.01, 200), *np.full(600, 50.0)])
    values[place] = 1e6
    assert len(trips(values)) == 1


def test_while_rare_batches_are_learned_the_other_losses_may_rise():
    """One loss in 16 falls from 2,800 to 1,000; the others rise from 1 to 20, or 90."""
    rare, frequent = (
        np.repeat([2800.0, 1000.0], [400, 160]),
        np.repeat([1.0, 20.0], [400, 160]),
    )
    often = np.arange(560) % 16 == 15
    assert trips(np.where(often, rare, frequent)) == []
    assert len(trips(frequent)) == 1
    # Now above the mean divided by √10.
    assert len(trips(np.where(often, rare, np.minimum(frequent**2, 90.0)))) == 1


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
    falls = [*np.geomspace(2.3, 0.01, 60), *np.full(90, 50.0)]
    watch = Watch(Divergence())
    for loss in falls:
        for value in (loss, -1.0, 0.0):
            watch(loss=value)
    (step,) = watch.tripped
    assert [step // 3] == trips(falls)
