import csv

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientClipping, GradientHistory, SkipOnExplosion
from tests import helper


def test_accumulates_over_fits():
    x, y = helper.regression_data(24)
    model, seen = helper.regression(), GradientHistory()
    helper.fit(model, x, y, [seen], epochs=2)
    helper.fit(model, x, y)  # without: seen by nobody
    helper.fit(model, x, y, [seen])
    assert seen.steps.tolist() == [0, 1, 2, 3, 4, 5, 9, 10, 11]
    assert seen.statistics["norm"].shape == (9, 2)
    total = np.sqrt(np.square(seen.statistics["norm"].astype("float64")).sum(axis=1))
    np.testing.assert_allclose(seen.global_norm, total, 1e-5)
    assert all(np.diff(seen.loss[:6:3]) < 0)  # the same batch, an epoch later


def test_a_second_history_sees_what_the_first_does():
    x, y = helper.regression_data(24)
    first, second = GradientHistory(), GradientHistory()
    helper.fit(helper.regression(), x, y, [first, second])
    helper.assert_same(second.statistics, first.statistics)
    assert first.steps.tolist() == [0, 1, 2]


def test_empty():
    seen = GradientHistory()
    assert len(seen.steps) == len(seen.loss) == len(seen.applied) == 0
    assert seen.variables == [] and seen.events == []
    assert seen.statistics["norm"].shape == (0, 0)


def test_bounded():
    x, y = helper.regression_data(64)
    seen, bounded = GradientHistory(), GradientHistory(max_steps=3)
    helper.fit(helper.regression(), helper.with_nan(x, 0, 8), y, [seen, bounded])
    assert bounded.steps[-1] == 7
    assert 3 <= len(bounded.steps) <= len(seen.steps) == 8
    assert all(e.step >= bounded.steps[0] for e in bounded.events)


@pytest.mark.thorough
def test_bounded_over_many_drains():
    x, y = helper.regression_data(400)
    bounded = GradientHistory(max_steps=10)
    helper.fit(helper.regression(), x, y, [bounded], batch_size=1)
    assert bounded.steps[-1] == 399 and 10 <= len(bounded.steps) <= 70


def test_csv_round_trip(tmp_path):
    x, y = helper.regression_data(24)
    seen = GradientHistory()
    x = helper.with_nan(x, 1, 8)
    helper.fit(helper.regression(), x, y, [seen, SkipOnExplosion(verbose=0)])
    seen.to_csv(tmp_path / "history.csv")
    with open(tmp_path / "history.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert [int(row["applied"]) for row in rows] == [1, 0, 1]

    def column(name):
        return np.array([float(row[name]) for row in rows], "float32")

    for name in ("global_norm", "clipped_norm", "loss"):
        helper.assert_same(column(name), getattr(seen, name))
    for v, variable in enumerate(seen.variables):
        for name, values in seen.statistics.items():
            helper.assert_same(column(f"{variable}:{name}"), values[:, v])


@pytest.mark.tensorflow
@pytest.mark.jax
@pytest.mark.parametrize("steps", helper.few([70], [24, 70]))
def test_a_ragged_last_execution_loses_nothing(steps):
    """6 and 70 steps are no multiple of the 4 in one execution."""
    x, y = helper.regression_data(steps)
    expected, seen = GradientHistory(), GradientHistory()
    helper.fit(helper.regression(), x, y, [expected], batch_size=1, epochs=2)
    model = helper.regression(steps_per_execution=4)
    helper.fit(model, x, y, [seen], batch_size=1, epochs=2)
    assert seen.steps.tolist() == list(range(2 * steps))
    assert model.gradwatch.recorder.lost == 0
    helper.assert_same(seen.loss, expected.loss)
    helper.assert_same(seen.global_norm, expected.global_norm)


@pytest.mark.tensorflow
@pytest.mark.jax
def test_steps_per_execution_beyond_the_ring():
    x, y = helper.regression_data(128)
    seen = GradientHistory()
    model = helper.regression(steps_per_execution=100)
    helper.fit(model, x, y, [seen], batch_size=1)
    assert seen.steps.tolist() == list(range(128))


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after `batch`."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            raise KeyboardInterrupt


def test_after_ctrl_c_rows_are_there_and_the_next_fit_is_unprotected():
    x, y = helper.regression_data(64)
    model, seen = helper.regression(), GradientHistory()
    clipping = GradientClipping(global_clipnorm=1e-6)
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [clipping, seen, Interrupt(4)])
    before = model.get_weights()
    helper.fit(model, x, y)  # without callbacks
    assert np.abs(model.get_weights()[0] - before[0]).max() > 1e-3
    model.train_on_batch(np.full_like(x, np.nan), y)
    assert np.isnan(model.get_weights()[0]).all()
    assert seen.steps.tolist()[:5] == [0, 1, 2, 3, 4]


def test_after_ctrl_c_the_rows_so_far_come_with_the_next_fit():
    x, y = helper.regression_data(64)
    model, seen = helper.regression(), GradientHistory()
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [seen, Interrupt(4)])
    helper.fit(model, x, y, [seen])
    assert seen.steps.tolist() == list(range(13))


def test_variables_that_were_frozen_in_between():
    x, y = helper.regression_data(8)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile("sgd", "mse")
    seen = GradientHistory()
    helper.fit(model, x, y, [seen])
    layers[0].trainable = False
    model.compile("sgd", "mse")
    helper.fit(model, x, y, [seen])
    assert len(seen.variables) == 4
    known = ~np.isnan(seen.statistics["norm"])
    assert known.tolist() == [[True] * 4, [False, False, True, True]]


@pytest.mark.thorough
def test_belongs_to_one_model():
    x, y = helper.regression_data(8)
    seen, other = GradientHistory(), helper.regression()
    helper.fit(helper.regression(), x, y, [seen])
    before = other.get_weights()
    with pytest.raises(ValueError, match="contains the steps of the model"):
        helper.fit(other, x, y, [seen])
    helper.assert_same(other.get_weights(), before)
    helper.fit(other, x, y, [GradientHistory()])


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"sample_freq": 0}, "sample_freq.*>= 1.*sample_freq=0"),
        ({"sample_freq": 1.5}, "sample_freq.*integer.*1.5"),
        ({"max_steps": 0}, "max_steps.*>= 1.*max_steps=0"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        GradientHistory(**arguments)


def test_one_variable_and_a_data_frame():
    pandas = pytest.importorskip("pandas")
    x, y = helper.regression_data()
    helper.fit(helper.regression(), x, y, [seen := GradientHistory()])
    name = seen.variables[0]
    np.testing.assert_array_equal(seen[name], seen.statistics["norm"][:, 0])
    with pytest.raises(KeyError, match="no variable is called 'kernel'"):
        seen["kernel"]
    frame = seen.to_dataframe()
    assert isinstance(frame, pandas.DataFrame) and frame.index.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(frame[f"{name}:norm"], seen[name])
    assert repr(seen) == "<GradientHistory: 3 steps of 2 variables, 0 events>"


def test_plots():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    x, y = helper.regression_data()
    x = helper.with_nan(x, 1, 8)
    helper.fit(helper.regression(), x, y, [seen := GradientHistory()])
    for figure in (seen.plot(), seen.heatmap()):
        figure.canvas.draw()
        matplotlib.pyplot.close(figure)
    labels = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert labels == seen.variables
