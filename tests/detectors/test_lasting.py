"""Detectors of conditions that last: told once at the onset, armed again later."""

import keras
import numpy as np
import pytest
from keras import ops
from sklearn.datasets import make_circles

from keras_gradwatch.callbacks import GradWatch, ReduceLROnExplosion
from keras_gradwatch.detectors import DeadUnits, Measurement, Oscillation, Vanishing
from keras_gradwatch.train_step.statistics import NAMES
from tests import helper, steps

# Two hidden layers of 10 units and 2 outputs: kernel, bias, kernel, bias, ...
SIZES = (40, 10, 100, 10, 20, 2)
KERNELS = (1, 0, 1, 0, 1, 0)


class Judge:
    """Runs a detector over steps as a traced step would, and notes where it trips."""

    def __init__(self, detector, kernels=KERNELS):
        self.detector, self.kernels = detector, kernels
        initial = detector.initial_state(len(kernels))
        self.state = {n: ops.convert_to_tensor(v) for n, v in initial.items()}
        self.settings = {
            n: ops.convert_to_tensor(v, "float32") for n, v in detector.settings.items()
        }
        self.step, self.tripped, self.verdict = 0, [], None
        self.detect = steps.traced(detector.detect)

    def __call__(self, count=1, loss=1.0, global_norm=1.0, **columns):
        matrix = np.zeros((len(self.kernels), len(NAMES)), "float32")
        matrix[:, NAMES.index("zero_fraction")] = np.nan
        for name, values in columns.items():
            matrix[:, NAMES.index(name)] = values
        finite = bool(np.isfinite([loss, global_norm]).all())
        given = {
            "step": 0,
            "loss": np.float32(loss),
            "global_norm": np.float32(global_norm),
            "statistics": matrix,
            "finite": finite,
            "sizes": np.array(SIZES[: len(self.kernels)], "float32"),
            "kernels": np.array(self.kernels, bool),
            "loss_scale": np.float32(np.nan),
        }
        measured = Measurement(
            **{name: ops.convert_to_tensor(v) for name, v in given.items()}
        )
        for _ in range(count):
            measured = measured._replace(step=ops.convert_to_tensor(self.step))
            verdict, self.state = self.detect(measured, self.state, self.settings)
            if verdict.tripped:
                self.tripped.append(self.step)
                self.verdict = verdict
            for value in self.state.values():
                assert np.isfinite(np.asarray(value)).all()
            self.step += 1


# -- Vanishing -------------------------------------------------------------------------

SOUND = [0.5, 0.1, 0.5, 0.1, 0.5, 0.1]
GONE = [1e-6, 1e-6, 1e-3, 1e-3, 0.5, 0.1]


def test_vanishing_is_told_once_and_names_the_first_kernel():
    judge = Judge(Vanishing(patience=5))
    judge(100, norm=GONE)
    assert judge.tripped == [4]
    variable, value, baseline = (np.asarray(v) for v in judge.verdict[1:])
    assert variable == 0
    np.testing.assert_allclose([value, baseline], [1e-6, 0.5], 1e-5)
    words = judge.detector.describe("dense/kernel", value, baseline)
    assert "dense/kernel" in words and "1e-06" in words and "0.5" in words


def test_vanishing_later_and_again():
    judge = Judge(Vanishing(decay=0.5, patience=5))
    judge(50, norm=SOUND)
    judge(50, norm=GONE)
    # The mean halves with each step, 0.5 · 2⁻¹³ is below 1e-4; believed at the fifth.
    assert judge.tripped == [50 + 12 + 4]
    judge = Judge(Vanishing(decay=0, patience=5))
    judge(30, norm=GONE)
    judge(4, norm=SOUND)  # short of `patience`: still the same condition
    judge(30, norm=GONE)
    assert len(judge.tripped) == 1
    judge(30, norm=SOUND)
    judge(30, norm=GONE)
    assert len(judge.tripped) == 2


@pytest.mark.parametrize(
    "norms",
    [
        [1e-6, 0, 1e-5, 0, 1e-6, 0],  # converged: small everywhere
        [0.002, 0, 1, 0, 50, 0],  # a small share of a large gradient
        [5e-5, 0, 1, 0, 0.01, 0],  # small, but not against the last one
        [0, 0, 0, 0, 0, 0],
    ],
)
def test_what_is_no_vanishing(norms):
    judge = Judge(Vanishing(patience=3))
    judge(100, norm=norms, global_norm=float(np.linalg.norm(norms)))
    assert judge.tripped == []


def test_vanishing_takes_in_nothing_that_is_not_finite():
    judge = Judge(Vanishing(patience=5))
    judge(3, norm=GONE)
    judge(9, norm=[np.nan] * 6, global_norm=np.nan)
    judge(9, norm=[np.nan] * 6, global_norm=1.0)  # part of an accumulation window
    judge(1, norm=GONE)
    assert judge.tripped == []
    judge(1, norm=GONE)
    assert judge.tripped == [22]


def test_vanishing_single_batches_without_a_gradient():
    judge = Judge(Vanishing())
    random = np.random.default_rng(0)
    for dead in random.uniform(size=400) < 0.7:
        judge(norm=[0, 0, 0, 0, 0.5, 0.1] if dead else SOUND)
    assert judge.tripped == []


def test_vanishing_of_disconnected_and_single_kernels():
    judge = Judge(Vanishing(patience=3))
    judge(9, norm=[np.nan, np.nan, 1e-6, 1e-6, 0.5, 0.1])
    assert judge.tripped == [2] and judge.verdict.variable == 2
    judge = Judge(Vanishing(patience=3), kernels=(1, 0))
    judge(9, norm=[1e-6, 0.5])
    assert judge.tripped == []


# -- DeadUnits -------------------------------------------------------------------------

DEAD = [1, 1, 1, 0.6, 0.6, 0]


def test_dead_units_are_told_once_and_name_the_dead_layer():
    judge = Judge(DeadUnits(0.7, apart=1, patience=3))
    judge(100, zero_fraction=DEAD)
    assert judge.tripped == [2] and judge.verdict.variable == 1
    # Of the 20 hidden units 10 and 6; the outputs are none.
    np.testing.assert_allclose(judge.verdict.value, 0.8)
    words = judge.detector.describe("dense/bias", 0.8, 0.7)
    assert words == "80% of the units get no gradient, and none in dense/bias"


def test_dead_units_are_counted_in_samples():
    judge = Judge(DeadUnits(apart=10, patience=3))
    for _ in range(3):
        judge(1, zero_fraction=DEAD)
        judge(49)
    assert judge.tripped == [100]
    judge = Judge(DeadUnits(apart=10, patience=3))
    judge(100, zero_fraction=DEAD)
    assert judge.tripped == [20]


def test_dead_units_again():
    judge = Judge(DeadUnits(apart=1, patience=3))
    judge(9, zero_fraction=DEAD)
    judge(2, zero_fraction=[0] * 6)
    judge(9, zero_fraction=DEAD)
    assert len(judge.tripped) == 1
    judge(3, zero_fraction=[0] * 6)
    judge(9, zero_fraction=DEAD)
    assert len(judge.tripped) == 2


@pytest.mark.parametrize(
    "zeros",
    [
        [1, 0, 1, 0, 1, 0],  # kernels: zero inputs, rows of an embedding
        [1, 0.9, 1, 0.9, 1, 0],  # single samples: most ReLUs are off, no layer wholly
        [1, 1, 1, 0.1, 0, 0],  # a layer without a gradient among sound ones
        [0, 0, 0, 0, 0, 1],  # the outputs
    ],
)
def test_what_is_no_death(zeros):
    judge = Judge(DeadUnits(apart=1, patience=1))
    judge(20, zero_fraction=zeros)
    assert judge.tripped == []


def test_dead_units_passes_over_what_tells_nothing():
    judge = Judge(DeadUnits(apart=1, patience=2))
    judge(1, zero_fraction=DEAD)
    judge(5)  # not sampled
    judge(5, zero_fraction=[1] * 6, global_norm=0.0)  # a batch that is fitted
    judge(5, zero_fraction=[0] * 6, global_norm=np.nan)
    judge(1, zero_fraction=DEAD)
    assert judge.tripped == [16]
    judge = Judge(DeadUnits(apart=1, patience=1), kernels=(1, 1, 1))
    judge(5, zero_fraction=[1, 1, 1])  # no biases
    assert judge.tripped == []


# -- Oscillation -----------------------------------------------------------------------


def trips(losses, **kwargs):
    judge = Judge(Oscillation(**kwargs))
    for loss in losses:
        judge(loss=float(loss))
    return judge.tripped


def test_oscillation_is_told_once():
    swing = [1.0, 2.0] * 60
    assert len(trips(swing)) == 1
    steady = np.linspace(2.0, 0.1, 200)
    assert trips(steady) == []
    found = trips([*steady, *swing])
    assert len(found) == 1 and found[0] > 200
    assert len(trips([*swing, *steady, *steady, *swing])) == 2


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_noise_is_no_oscillation(scale):
    noise = np.exp(scale * np.random.default_rng(0).normal(size=2000))
    assert trips(noise) == []


def test_small_swings_are_no_oscillation():
    assert trips([1.0, 1.05] * 60) == []
    assert len(trips([1.0, 1.05] * 60, amplitude=0.01)) == 1


def test_oscillation_takes_in_nothing_that_is_not_finite():
    swing = [1.0, 2.0] * 60
    broken = [x for pair in swing for x in (pair, np.nan, np.inf, 1e30)]
    assert len(trips(broken)) == 1


# -- In a fit --------------------------------------------------------------------------


def circles():
    x, y = make_circles(1000, noise=0.1, random_state=1)
    return x.astype("float32"), y


def stack(inputs, depth, width, activation, init, classes, optimizer, seed=0):
    keras.utils.set_random_seed(seed)
    hidden = [
        keras.layers.Dense(width, activation, kernel_initializer=init)
        for _ in range(depth)
    ]
    model = keras.Sequential(
        [keras.Input((inputs,)), *hidden, keras.layers.Dense(classes)]
    )
    return helper.compiled(model, optimizer)


def kinds(model, x, y, batch_size, epochs=1, callback=None):
    watching = callback or GradWatch(verbose=0, sample_freq=10)
    fitted = helper.fit(
        model, x, y, [watching], batch_size, epochs=epochs, shuffle=True
    )
    return {e.kind: e for e in watching.events}, fitted["accuracy"][-1]


@pytest.mark.thorough
def test_a_stack_of_sigmoids_vanishes():
    model = stack(2, 9, 5, "sigmoid", "he_uniform", 2, "adam")
    found, _ = kinds(model, *circles(), batch_size=32)
    assert set(found) == {"vanishing"}
    event = found["vanishing"]
    assert event.variable == model.trainable_variables[0].path
    assert event.action == "observed" and event.step == 19


def test_a_rate_that_kills_the_units():
    x, y = helper.digits(800)
    model = stack(64, 2, 64, "relu", "he_normal", 10, keras.optimizers.Adam(1.0))
    watching = ReduceLROnExplosion(detector=DeadUnits(), verbose=0)
    found, _ = kinds(model, x, y, 32, epochs=3, callback=watching)
    assert found["dead units"].action == "rate reduced"
    assert found["dead units"].variable.endswith("/bias")


HEALTHY = {
    "deep": (12, 128, "he_normal", "adam", 32, 4),
    "single samples": (2, 64, "he_normal", "adam", 1, 1),
    "converged": (1, 64, "he_normal", keras.optimizers.Adam, 32, 30),
}


@pytest.mark.parametrize(
    "name",
    [
        # Hundreds of steps each: eager, they take long.
        pytest.param("deep", marks=pytest.mark.tensorflow),
        pytest.param("single samples", marks=pytest.mark.tensorflow),
        pytest.param("converged", marks=[pytest.mark.tensorflow, pytest.mark.thorough]),
    ],
)
def test_healthy_runs_are_left_alone(name):
    depth, width, init, optimizer, batch_size, epochs = HEALTHY[name]
    x, y = helper.digits(1000)
    optimizer = optimizer(0.01) if callable(optimizer) else optimizer
    model = stack(64, depth, width, "relu", init, 10, optimizer)
    detector = Vanishing() | DeadUnits() | Oscillation()
    watching = ReduceLROnExplosion(detector=detector, verbose=0)
    found, accuracy = kinds(model, x, y, batch_size, epochs, watching)
    assert found == {} and accuracy > 0.6


def test_gradwatch_asks_for_them_by_default_only():
    asked = GradWatch().request().detectors
    assert {type(d) for d in asked} == {Vanishing, DeadUnits}
    assert GradWatch(detector=Oscillation()).request().detectors == ()
    followed = {d for r in GradWatch().request().responses for d in r.detectors}
    assert not followed & set(asked)
