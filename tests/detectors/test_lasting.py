"""Detectors of conditions that last, in a fit."""

import keras
import pytest
from sklearn.datasets import make_circles

from keras_gradwatch.callbacks import GradWatch, ReduceLROnExplosion
from keras_gradwatch.detectors import DeadUnits, Oscillation, Vanishing
from tests import helper


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


@pytest.mark.thorough
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
