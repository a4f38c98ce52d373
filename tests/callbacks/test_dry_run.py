"""A model is diagnosed by training a copy of it; the model itself stays as it is."""

import random

import keras
import numpy as np
import pytest

import keras_gradwatch
from tests import helper


def model_of(rate=0.01, inputs=1.0, optimizer=keras.optimizers.SGD):
    x, y = helper.digits(320)
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, "relu", kernel_initializer="he_normal")
    layers = [keras.Input((64,)), hidden, keras.layers.Dropout(0.1)]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer(rate), loss, metrics=["accuracy"])
    return model, inputs * x, y


def state_of(model):
    variables = [*model.variables, *model.optimizer.variables]
    for metric in model.metrics:
        variables += metric.variables
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def test_nothing_of_the_model_changes():
    """Bit for bit: weights, optimizer, metrics, seeds, and the run that follows."""
    runs = []
    for diagnosed in (False, True):
        model, x, y = model_of(optimizer=keras.optimizers.Adam)
        model.fit(x, y, verbose=0, shuffle=False)
        before = state_of(model)
        given = random.getstate(), np.random.get_state()[1]
        if diagnosed:
            keras_gradwatch.diagnose(model, x, y, steps=5, find_rate=True)
            assert random.getstate() == given[0]
            assert (np.random.get_state()[1] == given[1]).all()
            helper.assert_same(before, state_of(model))
            assert not hasattr(model, "gradwatch")
        model.fit(x, y, verbose=0, shuffle=False)
        runs.append(state_of(model))
    helper.assert_same(*runs)


@pytest.mark.thorough
def test_the_report_is_that_of_a_run():
    model, x, y = model_of(rate=30.0)
    report = keras_gradwatch.diagnose(model, x, y, steps=40)
    assert report.exploded and [cause.kind for cause in report.causes] == ["rate"]
    assert report.summary.steps == 40
    assert report.rate is None and report.rate_curve is None


@pytest.mark.thorough
def test_a_good_rate_is_found():
    model, x, y = model_of(rate=10.0)
    report = keras_gradwatch.diagnose(model, x, y, steps=30, find_rate=True)
    curve = report.rate_curve
    np.testing.assert_allclose(curve["rate"], np.geomspace(0.01, 1e4, 25), 1e-5)
    # An update of SGD is in proportion to the rate.
    shares = curve["update"][:8] / curve["update"][0]
    np.testing.assert_allclose(shares, curve["rate"][:8] / curve["rate"][0], 1e-2)
    good = (curve["update"] < 0.05) & (curve["loss"] <= curve["first_loss"])
    assert report.rate == curve["rate"][good].max() and report.rate < 10.0
    model.compile(keras.optimizers.SGD(report.rate), model.loss)
    losses = model.fit(x, y, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    assert report.clip is None or report.clip > 0


def test_a_schedule_and_a_model_that_is_not_built():
    x, y = helper.regression_data(64)
    model = keras.Sequential([keras.layers.Dense(3)])
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.5)
    model.compile(keras.optimizers.SGD(schedule), "mse")
    report = keras_gradwatch.diagnose(model, x, y, steps=25, find_rate=True)
    assert report.summary.steps == 25 and report.clip > 0
    assert report.rate_curve["rate"][12] == pytest.approx(0.01)
    assert not model.built


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "`steps` must be an integer >= 1. Received: steps=0"),
        ({"batch_size": 2.5}, "`batch_size` must be an integer >= 1"),
        ({"find_rate": 1}, "`find_rate` must be True or False"),
        (
            {"y": np.zeros(7)},
            "same number of rows, at least 1. Received: 320 in `x`, 7",
        ),
        ({"x": "text"}, "`x` must be an array, or a list or a dict of arrays"),
    ],
)
def test_bad_arguments_are_named(change, message):
    model, x, y = model_of()
    with pytest.raises(ValueError, match=message):
        keras_gradwatch.diagnose(**{"model": model, "x": x, "y": y, **change})


def test_models_that_cannot_be_diagnosed():
    x, y = helper.digits(32)
    with pytest.raises(TypeError, match="`model` must be a Keras model"):
        keras_gradwatch.diagnose("model", x, y)
    with pytest.raises(ValueError, match="`model` must be compiled"):
        keras_gradwatch.diagnose(keras.Sequential([keras.layers.Dense(1)]), x, y)
