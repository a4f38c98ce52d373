"""Loggers that fail, and runs that are interrupted: training and memory are safe."""

import weakref

import keras
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.loggers import CsvLog, Logger
from tests import helper


class Calls(Logger):
    """The names of the methods that were called, and an error in one of them."""

    def __init__(self, failing=None, error=ConnectionError):
        self.called, self.failing, self.error = [], failing, error

    def _call(self, name):
        self.called.append(name)
        if name == self.failing:
            raise self.error("no route to host")

    def on_begin(self, step):
        self._call("on_begin")

    def on_log(self, step, values):
        self._call("on_log")

    def on_end(self, report, heatmap):
        self._call("on_end")

    def on_close(self):
        self._call("on_close")


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after the first batch."""

    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt


def interrupted(model, *callbacks):
    x, y = helper.regression_data(16)
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [*callbacks, Interrupt()])


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("on_begin", ConnectionError),
        ("on_begin", ValueError),
        ("on_log", ConnectionError),
        ("on_end", ConnectionError),
        ("on_close", ConnectionError),
    ],
)
def test_a_logger_that_fails_is_closed_and_stops_no_fit(failing, error, capsys):
    lost, kept = Calls(failing, error), Calls()
    history = GradientHistory(log=[lost, kept], update_freq=1)
    x, y = helper.regression_data(16)
    model = helper.regression()
    for _ in range(2):
        helper.fit(model, x, y, [history])
        out = capsys.readouterr().out
        assert out.count(f"Calls.{failing} failed, so Calls is disabled") == 1
    assert kept.called == 2 * ["on_begin", "on_log", "on_log", "on_end", "on_close"]
    assert lost.called.count("on_begin") == 2 and lost.called.count(failing) >= 2
    assert lost.called[-1] == "on_close"
    assert lost.called[lost.called.index(failing) + 1] == "on_close"


def test_a_file_that_cannot_be_written_stops_no_fit(tmp_path, capsys):
    (tmp_path / "file").write_text("no directory")
    log = CsvLog(tmp_path / "file" / "x.csv")
    x, y = helper.regression_data(16)
    helper.fit(helper.regression(), x, y, [GradientHistory(log=log)])
    assert "CsvLog.on_begin failed" in capsys.readouterr().out


@pytest.mark.parametrize("kind", [GradWatch, GradientHistory])
def test_the_next_callback_ends_what_was_interrupted(kind):
    first, second = Calls(), Calls()
    model = helper.regression()
    interrupted(model, kind(log=first, update_freq=1))
    assert "on_end" not in first.called
    x, y = helper.regression_data(16)
    helper.fit(model, x, y, [kind(log=second, update_freq=1)])
    assert first.called == ["on_begin", "on_log", "on_end", "on_close"]
    assert second.called == ["on_begin", "on_log", "on_log", "on_end", "on_close"]


def test_a_model_is_freed_after_its_fit_was_interrupted(tmp_path):
    def run():
        model = helper.regression()
        interrupted(model, GradWatch(tmp_path, log=Calls(), verbose=0))
        return weakref.ref(model)

    model = run()
    helper.forget_graphs()
    assert model() is None


AT_EXIT = """
import atexit, sys
import keras
import numpy as np
from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.loggers import Logger

class Tracker(Logger):
    def on_begin(self, step):
        atexit.register(print, "the tracker ends its runs")

    def on_log(self, step, values):
        print("step", step)

    def on_end(self, report, heatmap):
        print("on_end")

    def on_close(self):
        print("on_close")

class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        raise KeyboardInterrupt

model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
watch = GradWatch(sys.argv[1], log=Tracker(), verbose=0)
try:
    x, y = np.ones((4, 2)), np.ones((4, 1))
    model.fit(x, y, verbose=0, callbacks=[watch, Interrupt()])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_what_was_interrupted_is_ended_at_exit_before_trackers_end(tmp_path):
    lines = helper.run_python(AT_EXIT, tmp_path).splitlines()
    lines = lines[lines.index("interrupted") + 1 :]
    end = ["on_end", "on_close", "the tracker ends its runs"]
    assert [line for line in lines if not line.startswith("step")] == end
    (file,) = (tmp_path / "gradwatch").glob("events.out.tfevents.*")
    assert b"gradwatch/heatmap" in file.read_bytes()


@pytest.mark.parametrize("log", [None, [], ()])
def test_statistics_are_sampled_for_somebody(log):
    assert GradWatch(per_variable=True, log=log).request().statistics == ()
    assert GradWatch(per_variable=True, log=Calls()).request().statistics
