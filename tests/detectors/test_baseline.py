"""Running baselines: their moments, spikes, warm-up, lasting shifts, and limits."""

import math

import numpy as np
import pytest

from keras_gradwatch.detectors import LossSpike, ZScore
from tests.detectors.observations import Watch, observation

BASELINES = pytest.mark.parametrize("cls", [ZScore, LossSpike])
# None: no limits are in force. 1: as in a run that is read at every step.
READ = pytest.mark.parametrize("every", [None, 1])


def noise(count, scale=1.0, seed=0):
    return scale * np.exp(0.2 * np.random.default_rng(seed).normal(size=count))


def same(state, other):
    return all(np.array_equal(state[name], other[name]) for name in other)


def run(detector, values, every=None):
    """The steps that tripped, and the last state."""
    watch = Watch(detector, every)
    watch.sequence(detector.judged, values)
    return watch.tripped, watch.state


def moments(values, decay):
    """Mean and variance of the logarithm, as weighted averages of all values."""
    logs = np.log(values)
    new = np.maximum(1 / np.arange(1, len(logs) + 1), 1 - decay)
    weights = new * np.append(np.cumprod((1 - new)[:0:-1])[::-1], 1.0)
    mean = np.average(logs, weights=weights)
    return mean, np.average((logs - mean) ** 2, weights=weights)


@BASELINES
@pytest.mark.parametrize(("count", "decay"), [(15, 0.97), (300, 0.97), (60, 0.5)])
def test_the_moments_are_weighted_averages_of_the_logarithm(cls, count, decay):
    values = noise(count)
    _, state = run(cls(decay=decay), values)
    mean, variance = moments(values, decay)
    np.testing.assert_allclose(state["mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(state["variance"], variance, rtol=1e-9)
    assert state["seen"] == count and state["streak"] == 0


@BASELINES
@READ
def test_one_step_by_hand(cls, every):
    start = {"mean": 1.0, "variance": 0.25, "seen": 50.0, "streak": 0.0}
    start |= {"peak": np.exp(2.0), "last_peak": 0.0}
    detector = cls(z=4.0, factor=2.0, decay=0.9)

    def after(value, **changed):
        watch = Watch(detector, every)
        watch.state |= {**start, **changed}
        watch(**{detector.judged: value})
        return watch.verdict, watch.state

    verdict, new = after(np.exp(2.9))  # 1.9 above: within 4 · 0.5
    assert verdict is None
    np.testing.assert_allclose(new["mean"], 1.0 + 0.1 * 1.9)
    np.testing.assert_allclose(new["variance"], 0.9 * (0.25 + 0.1 * 1.9**2))
    np.testing.assert_allclose(new["peak"], np.exp(2.9))
    verdict, new = after(np.exp(9.0))
    assert verdict.variable is None and new["streak"] == 1
    np.testing.assert_allclose(verdict[1:], [np.exp(9.0), np.e])
    np.testing.assert_allclose(new["mean"], 1.0 + 0.1 * 2.0)  # cut off at 4 · 0.5
    assert new["variance"] == 0.25 and new["peak"] == np.exp(2.0)
    # 3 deviations above the mean, but more than 100 times the largest of late.
    wide = {"variance": 100.0, "peak": np.e}
    assert after(99 * np.e, **wide)[0] is None
    assert after(101 * np.e, **wide)[0] is not None


@BASELINES
def test_limits_by_hand(cls):
    detector = cls(z=4.0, factor=2.0, warmup=5)

    def high(**state):
        state = detector.initial_state(2) | state
        ((name, (low, high)),) = detector.limits(state).items()
        assert name == detector.judged and low == 0
        return high

    assert high() == high(seen=2.0, peak=1.0) == math.inf
    assert high(seen=3.0, peak=0.5, last_peak=2.0) == 200.0
    usual = {"seen": 5.0, "mean": 1.0, "peak": 5.0}
    assert high(**usual, variance=0.25) == pytest.approx(np.exp(1.0 + 4 * 0.5))
    assert high(**usual, variance=0.01) == pytest.approx(2 * np.e)
    assert high(**usual, variance=100.0) == 500.0
    # Nothing overflows, and nothing is held back where no peak is known.
    assert high(seen=50.0, variance=1e9, peak=1e300) == pytest.approx(1e302)
    assert high(seen=50.0, variance=1e9) == math.inf


@BASELINES
def test_a_step_trips_where_its_limits_in_force_were_crossed(cls):
    """These may be older than the state, and decided whether the update was made."""
    detector = cls()
    _, state = run(detector, noise(60))
    for value, bound, trips in [(2.0, 1.5, True), (1e3, 1e4, False)]:
        limits = {detector.judged: (0.0, bound)}
        step = observation(limits=limits, **{detector.judged: value})
        verdict = detector.observe(step, dict(state))
        assert (verdict is not None) is trips


@BASELINES
def test_a_spike_within_limits_drawn_before_the_warm_up(cls):
    """Several steps in one execution: they run before the first limits are drawn."""
    values = noise(200)
    values[[12, 30]] *= 1e6
    tripped, state = run(cls(), values, every=50)
    assert tripped == [12, 30]
    assert abs(state["mean"]) < 0.2


@BASELINES
@READ
def test_a_spike_trips_once(cls, every):
    values = noise(80)
    values[50] *= 1e3
    assert run(cls(), values, every)[0] == [50]


@BASELINES
@pytest.mark.parametrize("every", [None, 1, 50])
def test_noise_does_not_trip(cls, every):
    assert run(cls(), noise(300, seed=1), every)[0] == []
    falling = np.geomspace(100, 1e-3, 300) * noise(300)
    assert run(cls(), falling, every)[0] == []


@BASELINES
@READ
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_ignored(cls, every, bad):
    detector = cls()
    _, state = run(detector, noise(40))
    limits = detector.limits(state) if every else {}
    step = observation(limits=limits, **{detector.judged: bad})
    new = dict(state)
    verdict = detector.observe(step, new)
    assert same(new, state)
    # An infinite norm crosses the limits although its gradients may be finite.
    assert (verdict is not None) == (bad == np.inf)


@BASELINES
@READ
def test_no_alarm_for_ever_after_a_lasting_shift(cls, every):
    values = np.concatenate([noise(60), noise(100, 1e4, 1)])
    detector = cls(patience=5)
    assert detector.patience == 5
    assert run(detector, values, every)[0] == [60, 61, 62, 63, 64]
    values[120] *= 1e4  # and the new level is guarded
    assert run(detector, values, every)[0][-1] == 120


@BASELINES
def test_no_alarm_for_ever_where_the_limits_are_drawn_rarely(cls):
    values = np.concatenate([noise(60), noise(400, 1e4, 1)])
    tripped, _ = run(cls(), values, every=50)
    assert tripped[0] == 60 and tripped[-1] < 100


@BASELINES
@READ
def test_a_shift_down_is_no_alarm_and_is_followed(cls, every):
    values = np.concatenate([noise(60), noise(150, 1e-3, 1)])
    values[200] = 1.0
    assert run(cls(), values, every)[0] == [200]


@BASELINES
@READ
@pytest.mark.parametrize("height", [1e4, 1e9])
def test_a_spike_in_the_warm_up_does_not_blind_it(cls, every, height):
    values = noise(300)
    values[5] *= height
    values[250] *= height
    assert run(cls(), values, every)[0] == [5, 250]


@BASELINES
@READ
def test_a_spike_in_the_warm_up_is_ignored(cls, every):
    values = noise(15)
    _, expected = run(cls(), values, every)
    tripped, state = run(cls(), np.insert(values, 14, [1e3, 1e9]), every)
    assert tripped == [14, 15] and same(state, expected)


@BASELINES
@READ
def test_a_spike_in_every_epoch_trips_in_every_epoch(cls, every):
    """What trips must not widen the range until it passes for normal."""
    values = noise(2000)
    values[10::40] *= 1e6
    assert run(cls(), values, every)[0] == list(range(10, 2000, 40))


@BASELINES
@READ
def test_zeros(cls, every):
    assert run(cls(), np.zeros(60), every)[0] == []


@BASELINES
@READ
def test_zeros_are_no_level(cls, every):
    """A satisfied hinge loss has no gradient; the next sample's is nothing unusual."""
    values = noise(300)
    values[np.random.default_rng(1).random(300) < 0.8] = 0.0
    values[120:200] = 0.0
    values[250] = 1e3
    tripped, state = run(cls(), values, every)
    assert tripped == [250]
    assert same(state, run(cls(), values[values > 0], every)[1])


@BASELINES
def test_the_largest_of_the_newest_100_to_200(cls):
    """Older peaks are forgotten, newer ones are not."""
    detector = cls(z=50.0)
    values = noise(400)
    values[20] *= 50
    watch = Watch(detector)
    for step, value in enumerate(values):
        watch(**{detector.judged: value})
        known = max(watch.state["peak"], watch.state["last_peak"])
        assert known >= values[max(0, step - 99) : step + 1].max()
        assert known <= values[max(0, step - 199) : step + 1].max()


def test_a_negative_loss_counts_by_its_magnitude():
    values = -noise(80)
    values[50] *= 1e3
    tripped, state = run(LossSpike(), values)
    assert tripped == [50] and same(state, run(LossSpike(), -values)[1])


def test_an_unknown_loss_is_never_judged():
    watch = Watch(LossSpike(), every=1)
    step = observation(loss=math.nan, limits={"loss": (0.0, 1.0)})
    assert LossSpike().observe(step, watch.state) is None
    assert same(watch.state, LossSpike().initial_state(2))


def test_the_words():
    assert LossSpike().describe(None, 120.0, 3.0) == (
        "the loss is 120, 40 times its baseline of 3"
    )
    assert ZScore().describe(None, 2.0, 0.0) == (
        "the global gradient norm is 2, above its baseline of 0"
    )


@BASELINES
def test_bad_batches_among_the_first_ones_do_not_hide_later_ones(cls):
    """One value in six is a million times too large, the very first one, too."""
    values = noise(120)
    bad = np.arange(0, 120, 6)
    values[bad] *= 1e6
    tripped, state = run(cls(), values)
    assert tripped == bad[2:].tolist()
    assert abs(state["mean"]) < 0.5 and state["variance"] < 0.5


@BASELINES
@READ
def test_a_value_like_the_first_ones_is_not_skipped(cls, every):
    """The only batch with a rare class is as far off as the first batches were."""
    values = np.concatenate([noise(40), noise(400, 1e-4, 1)])
    values[240:400:40] = 3.0
    values[400] = 1e4
    tripped, state = run(cls(), values, every)
    assert tripped == [240, 280, 320, 400]
    assert cls().limits(state)[cls.judged][1] > 3.0


@BASELINES
@READ
@pytest.mark.parametrize(("height", "passes"), [(300.0, True), (1e6, False)])
def test_spikes_that_recur_are_data_unless_they_are_huge(cls, every, height, passes):
    values = noise(900)
    values[100::40] *= height
    tripped, _ = run(cls(), values, every)
    assert tripped == ([100, 140, 180] if passes else list(range(100, 900, 40)))


@BASELINES
def test_spikes_in_a_row_do_not_recur(cls):
    values = noise(300)
    values[100:103] *= 300.0
    values[200] *= 300.0
    assert run(cls(), values)[0] == [100, 101, 102, 200]


@BASELINES
def test_spikes_that_recur_outlive_a_rollback(cls):
    values = noise(400)
    values[100::40] *= 300.0
    _, state = run(cls(), values)
    known = {name: state[name] for name in ("recurred", "usual")}
    cls().restart(state, 2)
    assert same(state, {**cls().initial_state(2), **known}) and known["recurred"] == 3


@BASELINES
def test_spikes_that_recur_do_not_widen_the_range(cls):
    """Once in ten steps: without that, the range would be 50 times as wide."""
    values = noise(900)
    values[100::10] *= 300.0
    _, state = run(cls(), values)
    usual = values[[100, 110, 120]].max()
    assert cls().limits(state)[cls.judged][1] <= 2.0 * usual


@BASELINES
def test_a_later_fit_may_begin_like_the_first_one(cls):
    """Cross-validation begins each `fit` with the first weights."""
    watch = Watch(cls())
    for _ in range(2):
        watch.detector.begin_fit(watch.state)
        falls = np.geomspace(2.3, 0.02, 200)
        watch.sequence(cls.judged, falls * noise(200))
    assert watch.tripped == []


@BASELINES
def test_spikes_that_recur_may_grow(cls):
    """Beyond the reach of the first ones, in steps of less than four times."""
    values = noise(900)
    values[100::20] *= np.geomspace(300.0, 3e5, 40)
    tripped, _ = run(cls(), values)
    assert tripped[:3] == [100, 120, 140] and len(tripped) < 20
