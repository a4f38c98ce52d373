"""One hand-computed step of each detector, and running baselines over sequences."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.detectors import (
    Collapse,
    Divergence,
    LossSpike,
    Measurement,
    NonFinite,
    NormThreshold,
    UpdateRatio,
    ZScore,
)
from keras_gradwatch.train_step.statistics import NAMES


def measurement(
    global_norm=1.0, loss=1.0, finite=None, sizes=(15, 3), kernels=(1, 0), **columns
):
    matrix = np.zeros((len(sizes), len(NAMES)), "float32")
    for name, values in columns.items():
        matrix[:, NAMES.index(name)] = values
    finite = bool(np.isfinite([global_norm, loss]).all()) if finite is None else finite
    return Measurement(
        step=ops.convert_to_tensor(0),
        loss=ops.convert_to_tensor(loss, "float32"),
        global_norm=ops.convert_to_tensor(global_norm, "float32"),
        statistics=ops.convert_to_tensor(matrix),
        finite=ops.convert_to_tensor(finite),
        sizes=ops.convert_to_tensor(sizes, "float32"),
        kernels=ops.convert_to_tensor(np.array(kernels, bool)),
    )


def detect(detector, measured, state=None):
    if state is None:
        state = detector.initial_state(2)
    settings = {
        k: ops.convert_to_tensor(float(v)) for k, v in detector.settings.items()
    }
    state = {k: ops.convert_to_tensor(v) for k, v in state.items()}
    verdict, state = detector.detect(measured, state, settings)
    verdict = [np.asarray(v).item() for v in verdict]
    return verdict, {k: np.asarray(v).item() for k, v in state.items()}


def run(detector, values):
    """The steps that tripped, and the last state."""
    name = "loss" if isinstance(detector, LossSpike) else "global_norm"
    state, tripped = None, []
    for step, value in enumerate(values):
        verdict, state = detect(detector, measurement(**{name: value}), state)
        if verdict[0]:
            tripped.append(step)
        assert np.isfinite(list(state.values())).all(), (step, state)
    return tripped, state


def test_non_finite_names_the_worst_variable():
    measured = measurement(np.nan, nonfinite_count=[2, 3])
    (tripped, variable, value, _), _ = detect(NonFinite(), measured)
    assert (tripped, variable, value) == (True, 1, 3)
    words = NonFinite().describe("dense/bias", value, 0.0)
    assert words == "3 non-finite gradient values in dense/bias"


def test_non_finite_loss():
    (tripped, variable, value, _), _ = detect(NonFinite(), measurement(loss=np.inf))
    assert (tripped, variable, value) == (True, -1, np.inf)
    assert NonFinite().describe(None, value, 0.0) == "the loss is inf"
    assert detect(NonFinite(), measurement())[0][0] is False


@pytest.mark.parametrize(
    ("norm", "tripped"), [(1.9, False), (2.0, True), (2.1, True), (np.nan, True)]
)
def test_norm_threshold(norm, tripped):
    verdict, _ = detect(NormThreshold(2.0), measurement(norm))
    assert verdict[0] is tripped and verdict[3] == 2.0
    np.testing.assert_equal(verdict[2], np.float32(norm))


@pytest.mark.parametrize(
    ("weights", "ratios", "expected"),
    [
        ([2.0, 1.0], [0.4, 99.0], (False, 0, 0.4)),  # a bias is not judged
        ([2.0, 1.0], [0.6, 0.0], (True, 0, 0.6)),
        ([2.0, 1.0], [np.nan, 0.0], (True, 0, np.inf)),
        # ‖w‖ below 0.5·√15: the ratio counts against that.
        ([0.5, 1.0], [1.0, 0.0], (False, 0, 0.5 / (0.5 * 15**0.5))),
        ([0.0, 1.0], [np.inf, 0.0], (False, 0, 0.0)),  # it must be able to leave 0
        ([np.nan, np.nan], [np.nan, np.nan], (False, 0, 0.0)),  # not sampled
    ],
)
def test_update_ratio(weights, ratios, expected):
    detector = UpdateRatio(0.5, floor=0.5)
    measured = measurement(weight_norm=weights, update_ratio=ratios)
    (tripped, variable, value, baseline), _ = detect(detector, measured)
    assert (tripped, variable, baseline) == (expected[0], expected[1], 0.5)
    np.testing.assert_allclose(value, expected[2], 1e-6)


BASELINES = pytest.mark.parametrize("cls", [ZScore, LossSpike])


def noise(count, scale=1.0, seed=0):
    return scale * np.exp(0.2 * np.random.default_rng(seed).normal(size=count))


@BASELINES
def test_the_running_moments_are_those_of_the_logarithm(cls):
    values = noise(15)
    _, state = run(cls(warmup=20), values)
    logs = np.log(values)
    np.testing.assert_allclose(state["mean"], logs.mean(), 1e-4)
    np.testing.assert_allclose(state["variance"], logs.var(), 1e-3)
    assert state["seen"] == 15 and state["streak"] == 0


@BASELINES
def test_one_step_by_hand(cls):
    state = {"mean": 1.0, "variance": 0.25, "seen": 50.0, "streak": 0.0}
    state |= {"peak": np.exp(2.0), "last_peak": 0.0}
    state = {k: np.float32(v) for k, v in state.items()}
    detector = cls(z=4.0, factor=2.0, decay=0.9)
    name = "loss" if cls is LossSpike else "global_norm"
    quiet = measurement(**{name: np.exp(2.9)})  # 1.9 above: within 4 · 0.5
    verdict, new = detect(detector, quiet, state)
    assert not verdict[0]
    np.testing.assert_allclose(verdict[2:], [np.exp(2.9), np.e], 1e-5)
    np.testing.assert_allclose(new["mean"], 1.0 + 0.1 * 1.9, 1e-5)
    np.testing.assert_allclose(new["variance"], 0.9 * (0.25 + 0.1 * 1.9**2), 1e-5)
    loud = measurement(**{name: np.exp(9.0)})
    verdict, new = detect(detector, loud, state)
    assert verdict[0] and new["streak"] == 1
    np.testing.assert_allclose(new["mean"], 1.0 + 0.1 * 2.0, 1e-5)  # cut off at 4 · 0.5
    assert new["variance"] == 0.25 and new["peak"] == np.float32(np.exp(2.0))
    # 3 deviations above the mean, but more than 100 times the largest of late.
    calm = {**state, "variance": np.float32(100.0), "peak": np.float32(np.e)}
    assert not detect(detector, measurement(**{name: 99 * np.e}), calm)[0][0]
    assert detect(detector, measurement(**{name: 101 * np.e}), calm)[0][0]


@BASELINES
def test_a_spike_trips_once(cls):
    values = noise(80)
    values[50] *= 1e3
    assert run(cls(), values)[0] == [50]


@BASELINES
def test_noise_does_not_trip(cls):
    assert run(cls(), noise(300, seed=1))[0] == []
    assert run(cls(), np.geomspace(100, 1e-3, 300) * noise(300))[0] == []


@BASELINES
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_taken_in(cls, bad):
    values = noise(80)
    _, expected = run(cls(), np.delete(values, 40))
    values[40] = bad
    tripped, state = run(cls(), values)
    assert tripped == [] and state == expected
    values[60] = 1e4
    assert run(cls(), values)[0] == [60]


@BASELINES
def test_no_alarm_for_ever_after_a_lasting_shift(cls):
    values = np.concatenate([noise(60), noise(100, 1e4, 1)])
    tripped, _ = run(cls(patience=5), values)
    assert tripped == [60, 61, 62, 63, 64]
    values[120] *= 1e4  # and the new level is guarded
    assert run(cls(patience=5), values)[0][-1] == 120


@BASELINES
def test_a_shift_down_is_no_alarm_and_is_followed(cls):
    values = np.concatenate([noise(60), noise(150, 1e-3, 1)])
    values[200] = 1.0
    assert run(cls(), values)[0] == [200]


@BASELINES
@pytest.mark.parametrize("height", [1e4, 1e9])
def test_a_spike_in_the_warm_up_does_not_blind_it(cls, height):
    values = noise(300)
    values[5] *= height
    values[250] *= height
    tripped, _ = run(cls(), values)
    assert tripped == [5, 250]


@BASELINES
def test_a_spike_in_every_epoch_trips_in_every_epoch(cls):
    """What trips must not widen the range until it passes for normal."""
    values = noise(2000)
    values[10::40] *= 1e4
    tripped, _ = run(cls(), values)
    assert tripped == list(range(10, 2000, 40))


@BASELINES
def test_zeros(cls):
    values = np.zeros(60)
    assert run(cls(), values)[0] == []


def test_collapse_trips_once_and_again_after_a_gradient():
    dead, alive = {"norm": [0.0, 1.0]}, {"norm": [1e-9, 1.0]}
    detector, state, tripped = Collapse(3), None, []
    # What has never been alive cannot die.
    sequence = [dead] * 9 + [alive] + [dead] * 6 + [alive] + [dead] * 3
    for step, columns in enumerate(sequence):
        verdict, state = detect(detector, measurement(1.0, **columns), state)
        if verdict[0]:
            tripped.append(step)
    assert tripped == [12, 19]
    assert "for 3 steps" in detector.describe(None, 3.0, 3.0)


def test_no_collapse_where_nothing_is_asked_for():
    """A loss that is satisfied has no gradient at all."""
    detector, state = Collapse(3), None
    for _ in range(9):
        verdict, state = detect(detector, measurement(0.0, norm=[0.0, 0.0]), state)
        assert not verdict[0]


def losses(detector, values):
    """The steps at which a sequence of losses trips."""
    state, tripped = None, []
    for step, value in enumerate(values):
        verdict, state = detect(detector, measurement(loss=float(value)), state)
        if verdict[0]:
            tripped.append(step)
        assert np.isfinite(list(state.values())).all()
    return tripped


def test_divergence_trips_once_it_lasts():
    falls = np.geomspace(2.3, 0.01, 200)
    (step,) = losses(Divergence(), [*falls, *np.full(100, 50.0)])
    assert 219 <= step < 250
    # It comes down, and comes apart again.
    twice = [*falls, *np.full(60, 50.0), *np.full(200, 0.01), *np.full(60, 50.0)]
    assert len(losses(Divergence(), twice)) == 2


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
    assert losses(Divergence(), values) == []


@BASELINES
def test_steps_that_say_nothing_are_no_level(cls):
    """A satisfied hinge loss has no gradient; the next sample's is nothing unusual."""
    values = noise(300)
    values[np.random.default_rng(1).random(300) < 0.8] = 0.0
    values[120:200] = 0.0
    values[250] = 1e3
    tripped, state = run(cls(), values)
    assert tripped == [250]
    assert state == run(cls(), values[values > 0])[1]
