"""The callbacks that change nothing say what protection would have acted on."""

import json

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradientTensorBoard, GradWatch
from tests import helper
from tests.callbacks.test_tensorboard import read


def exploding(callbacks, x, y):
    keras.backend.clear_session()  # the names of the layers are the same each time
    keras.utils.set_random_seed(1)
    layers = [keras.Input((64,)), keras.layers.Dense(32, "relu")]
    model = keras.Sequential([*layers, keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(3.0, 0.9))
    history = helper.fit(model, x, y, callbacks, 16)
    return model, history


def test_an_explosion_is_seen_and_nothing_is_changed():
    x, y = helper.digits(480)
    stock, _ = exploding([], x, y)
    watched, logs = exploding([seen := GradientHistory()], x, y)
    helper.assert_same(watched.get_weights(), stock.get_weights())
    assert {event.action for event in seen.events} == {"observed"}
    first = next(event for event in seen.events if event.kind == "update")
    assert "use `GradWatch()` to limit updates" in first.message
    assert logs["explosions"][0] > 0
    assert first.message in seen.report()


def test_steps_around_an_event_are_logged(tmp_path):
    x, y = helper.digits(960)
    board = GradientTensorBoard(tmp_path)
    exploding([board], x, y)
    steps, _ = read(tmp_path)["gradwatch/grad_norm"]
    assert steps[:20] == list(range(20))


def test_the_report_is_written(tmp_path):
    x, y = helper.digits(480)
    exploding([board := GradientTensorBoard(tmp_path)], x, y)
    text = (tmp_path / "gradwatch" / "report.txt").read_text()
    assert text == board.report() + "\n" and "to limit updates" in text
    run = json.loads((tmp_path / "gradwatch" / "run.json").read_text())
    assert (run["status"], run["step"]) == ("ended", 30)


@pytest.mark.thorough
@pytest.mark.parametrize("observer", [GradientHistory, GradientTensorBoard])
def test_beside_a_callback_that_acts_there_is_one_report_of_an_update(
    observer, tmp_path
):
    x, y = helper.digits(480)
    arguments = [tmp_path] if observer is GradientTensorBoard else []
    alone, _ = exploding([one := GradWatch(verbose=0)], x, y)
    both, _ = exploding([two := GradWatch(verbose=0), observer(*arguments)], x, y)
    helper.assert_same(both.get_weights(), alone.get_weights())
    assert [e.message for e in two.events] == [e.message for e in one.events]


def test_a_healthy_run_has_no_event():
    x, y = helper.digits(480)
    keras.utils.set_random_seed(1)
    model = helper.compiled(helper.functional(dropout=0), "adam")
    helper.fit(model, x, y, [seen := GradientHistory()], epochs=3)
    assert seen.events == [] and np.isfinite(seen.loss).all()
    assert seen.report().startswith("No explosion in 180 steps.")
