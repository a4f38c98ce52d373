"""The radius of the trust region, step by step on the host."""

import math

import numpy as np
import pytest

from keras_gradwatch.controller.responses.trust import TrustRegion


def advance(region, losses, held=True):
    """The radius, the rate's factor and the end after each step from step 1 on."""
    state, seen = region.initial_state(), []
    for step, loss in enumerate(losses, start=1):
        _, stalled = region.advance(state, step, held, float(loss))
        factor = region.shrink(state) if stalled else 1.0
        seen.append((state["radius"], factor, state["until"]))
    return np.array(seen)


def test_the_radius_shrinks_while_the_loss_does_not_fall():
    region = TrustRegion(0.02, least=0.006, window=10, quiet=30)
    seen = advance(region, [5.0] * 60)
    # The first full window is the yardstick; then one shrink each, as far as `least`.
    assert (1 + np.flatnonzero(seen[:, 1] < 1)).tolist() == [20, 30]
    np.testing.assert_allclose(seen[[18, 19, 29, 59], 0], [0.02, 0.01, 0.006, 0.006])
    assert (seen[:, 2] == np.arange(1, 61) + 1 + 30).all()


@pytest.mark.parametrize(
    "losses", [0.9 ** np.arange(80), -np.arange(80), np.full(80, np.nan)]
)
def test_the_radius_stays_while_the_loss_falls_or_is_not_known(losses):
    seen = advance(TrustRegion(window=10), losses)
    assert (seen[:, 1] == 1).all() and (seen[:, 0] == 0.02).all()


def test_no_cut_where_nothing_is_held():
    region = TrustRegion(window=10)
    seen = advance(region, [5.0] * 80, held=False)
    assert (seen[:, 1] == 1).all()
    # The end is not put off: it stays where it was.
    assert (seen[:, 2] == region.initial_state()["until"]).all()


def test_most_updates_must_be_held():
    """Half of a window's are enough for a cut, one less is not."""
    for count, cut in ((5, True), (4, False)):
        region = TrustRegion(window=10)
        state = region.initial_state()
        found = [
            region.advance(state, step, step % 10 < count, 5.0) for step in range(20)
        ]
        ended, stalled = zip(*found, strict=True)
        assert np.flatnonzero(ended).tolist() == [9, 19]
        assert stalled[-1] is cut and not any(stalled[:-1])


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_not_taken_in(unknown):
    """The window is that of the others: with every other unknown, twice as long."""
    region = TrustRegion(window=10)
    losses = np.full(80, 5.0)
    losses[::2] = unknown
    seen = advance(region, losses)
    assert np.flatnonzero(seen[:, 1] < 1).tolist() == [39, 59, 79]
    assert np.isfinite(seen).all()


def test_a_loss_below_zero_goes_on_the_scale_of_one_above():
    """From 1 over 0 to −1000 it falls all the time: no cut."""
    losses = [1.0, 1e-3, 1e-9, 0.0, -1e-9, -1e-3, -1.0, -1000.0]
    seen = advance(TrustRegion(window=1), losses)
    assert (seen[:, 1] == 1).all()
    seen = advance(TrustRegion(window=1), losses[::-1])
    assert (seen[1:, 1] < 1).sum() >= 5


def test_tightened():
    region = TrustRegion(0.02, least=0.003)
    state = region.initial_state()
    for step in range(30):
        region.advance(state, step, True, 5.0)
    state = region.tightened({**state, "radius": 0.02}, 0.25, 70)
    assert state == {**region.initial_state(), "radius": 0.005, "until": 70.0}
    assert region.tightened(state, 0.25, 90)["radius"] == 0.003
