"""`examples/effect_on_error.py`: what it prints, and L-BFGS on a Keras model."""

import re

import keras
import numpy as np
import pytest

from tests import helper
from tests.test_examples import event_files, run


@pytest.mark.tensorflow
def test_what_it_prints(tmp_path):
    printed = run("effect_on_error.py", tmp_path, "--quick", "--log-dir", "here")
    grid, others = helper.tables(printed)
    who = ["stock", "watched"]
    assert [(row["optimizer"], row["run"]) for row in (*grid, *others)] == [
        *(("SGD 0.1", run) for run in who),
        *(("gradient descent 0.1", run) for run in who),
        ("L-BFGS", "stock"),
    ]
    for row in (*grid, *others):
        assert row["gain"] == "8"
        errors = [v for k, v in row.items() if k.startswith("error") and v != "–"]
        assert len(errors) == (3 if row in grid else 6)
        assert all(0 <= float(v) <= 1 for v in (*errors, row["test accuracy"])), row
        # One seed: what counts as survival follows from the row itself.
        assert row["survived"] == f"{int(float(row['test accuracy']) > 0.55)} of 1"
    for stock, watched in (grid, others[:2]):
        assert stock["survived"] == "0 of 1" and watched["survived"] == "1 of 1"
        # The same weights and the same first batch.
        assert stock["first norm"] == watched["first norm"]
    # A line search does not need to be protected.
    lbfgs = others[2]
    assert lbfgs["survived"] == "1 of 1"
    # It is given the gradient that is in Keras's first step.
    norms = float(lbfgs["first norm"]), float(others[0]["first norm"])
    assert norms[0] == pytest.approx(norms[1], rel=0.01)
    assert (tmp_path / "here" / "effect_on_error.png").stat().st_size > 10_000
    sizes = event_files(tmp_path / "here")
    assert set(sizes) == {
        "grid/gain_8_SGD_0.1/gradwatch",
        "optimizers/gain_8_gradient_descent_0.1/gradwatch",
    }
    assert min(sizes.values()) > 1000
    assert re.search(r"^In TensorBoard: tensorboard --logdir here$", printed, re.M)


@pytest.mark.tensorflow
def test_the_gain_multiplies_the_deviation_of_he_initialization(study):
    model = study.network((28, 28, 1), 4.0, 0, "sgd")
    assert [v.shape[0] for v in model.trainable_variables[::2]] == [784, 64, 64, 64]
    for kernel in model.trainable_variables[:-2:2]:
        expected = 4 * np.sqrt(2 / kernel.shape[0])
        assert np.std(kernel.numpy()) == pytest.approx(expected, rel=0.05)


@pytest.mark.tensorflow
def test_the_loss_and_gradients_are_those_of_the_network(study):
    """Against forward and back in NumPy."""
    x, y = helper.digits(50)
    model = study.network((64,), 2.0, 0, "sgd")
    objective = study.lbfgs.Objective(model, study.LOSS, x, y)
    start = objective.get()
    value, gradient = objective(start)
    np.testing.assert_array_equal(objective.get(), start)

    weights = [np.float64(v.numpy()) for v in model.trainable_variables]
    inputs = [np.float64(x)]
    for kernel, bias in zip(weights[:-2:2], weights[1:-2:2], strict=True):
        inputs.append(np.maximum(inputs[-1] @ kernel + bias, 0))
    logits = inputs[-1] @ weights[-2] + weights[-1]
    logits -= logits.max(axis=1, keepdims=True)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    chosen = np.eye(10)[y]
    assert value == pytest.approx(-np.log((shares * chosen).sum(axis=1)).mean(), 1e-4)

    back, parts = (shares - chosen) / len(x), []
    for layer in (3, 2, 1, 0):
        parts = [(inputs[layer].T @ back).ravel(), back.sum(axis=0), *parts]
        back = back @ weights[2 * layer].T * (inputs[layer] > 0)
    expected = np.concatenate(parts)
    np.testing.assert_allclose(gradient, expected, 1e-3, 1e-5 * abs(expected).max())


@pytest.mark.tensorflow
def test_lbfgs_solves_least_squares(study):
    x, y = helper.regression_data(count=24, units=1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    loss = keras.losses.MeanSquaredError()
    objective = study.lbfgs.Objective(model, loss, x, y)
    losses = []

    def after_pass():
        losses.append(float(loss(y, model(x))))

    start = float(loss(y, model(x)))
    study.lbfgs.fit(objective, 100, after_pass)
    assert len(losses) == objective.passes < 100
    # Until a line search has come to an end, the model is the one before.
    assert losses[0] == start and max(np.diff(losses)) <= 1e-6
    solution = np.linalg.lstsq(np.c_[x, np.ones(24)], y, rcond=None)[0][:, 0]
    np.testing.assert_allclose(objective.get(), solution, 1e-3, 1e-3)


@pytest.mark.tensorflow
def test_lbfgs_ends_after_its_passes(study):
    x, y = helper.digits(200)
    model = study.network((64,), 1.0, 0, "sgd")
    objective = study.lbfgs.Objective(model, study.LOSS, x, y)
    told = []
    study.lbfgs.fit(objective, 7, lambda: told.append(objective.passes))
    # A line search that has begun goes on.
    assert 7 <= objective.passes <= 12
    assert len(told) == objective.passes
