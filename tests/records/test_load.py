"""What real fits leave on disk, read back with `keras_gradwatch.load`."""

import shutil

import keras
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch.callbacks import GradientHistory, GradientTensorBoard, GradWatch
from keras_gradwatch.reports import forensics
from keras_gradwatch.statistics.names import NAMES
from tests import helper

load = keras_gradwatch.load


def assert_equal_to_history(run, seen):
    """Compares a run with the `GradientHistory` of the same steps."""
    assert run.steps.tolist() == seen.steps.tolist()
    assert list(run.variables) == seen.variables
    for name in ("global_norm", "clipped_norm", "loss", "learning_rate", "applied"):
        helper.assert_same(getattr(run, name), getattr(seen, name), None)
    bad = seen.statistics["nonfinite_count"] > 0
    norms = np.where(bad, np.float32(np.inf), seen.statistics["norm"])
    helper.assert_same(run.norms, norms, None)
    for name, (steps, values) in run.statistics.items():
        expected = seen.statistics[name][np.isin(seen.steps, steps)]
        helper.assert_same(values, expected, None)
    assert run.events == seen.events


def watched(directory, **kwargs):
    return GradWatch(directory, verbose=0, **kwargs)


@pytest.mark.parametrize("make", [GradientTensorBoard, watched])
def test_a_run_is_as_the_history_has_it(make, tmp_path):
    x, y = helper.regression_data(80)
    board, seen = make(tmp_path / "one"), GradientHistory()
    callbacks = [board, seen]
    helper.fit(
        helper.regression(), helper.with_nan(x, 30, 1), y, callbacks, batch_size=1
    )
    run = load(tmp_path / "one")
    assert run.name == "one" and run.directory.endswith("gradwatch")
    assert_equal_to_history(run, seen)
    assert set(run.statistics) == set(NAMES) - {"norm"}
    assert len(run.events) >= 1 and np.isinf(run.norms[30]).all()
    assert run.report == board.report().to_dict()
    assert run.status["status"] == "ended" and run.status["step"] == 80
    limits = run.scalars["limit_global_norm"]
    assert np.isnan(limits[30])
    assert (limits[10:30] > run.global_norm[10:30]).all()
    assert load(tmp_path / "one" / "gradwatch").steps.tolist() == run.steps.tolist()


def test_histograms_are_those_of_the_gradient(tmp_path):
    x, y = helper.regression_data(80)
    callbacks = [watched(tmp_path, histogram_freq=20), seen := GradientHistory(1)]
    helper.fit(helper.regression(), x, y, callbacks, batch_size=1)
    found = load(tmp_path).histograms
    assert list(found) == [0, 20, 40, 60]
    for step, values in found.items():
        assert values[:, :-2].sum(axis=1).tolist() == [15, 3]
        largest = np.abs(values[:, -2:]).max(axis=1)
        np.testing.assert_allclose(largest, seen.statistics["max_abs"][step], rtol=1e-6)


def test_later_fits_go_on(tmp_path):
    """Also with other callbacks, and after a `fit` that was interrupted."""

    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 5:
                raise KeyboardInterrupt

    x, y = helper.regression_data(10)
    model, seen, watch = helper.regression(), GradientHistory(), watched(tmp_path)
    helper.fit(model, x, y, [watch, seen], batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [watch, seen, Interrupt()], batch_size=1)
    forensics._write_rest()  # as at the end of the process
    assert load(tmp_path).steps.tolist() == list(range(16))
    helper.fit(model, x, y, [watched(tmp_path), seen], batch_size=1)
    assert len(seen.steps) == 26
    assert_equal_to_history(load(tmp_path), seen)


@pytest.mark.thorough
def test_another_model_has_a_record_of_its_own(tmp_path):
    x, y = helper.regression_data(10)
    watch = watched(state_dir=tmp_path / "state", directory=None)
    helper.fit(helper.regression(), x, y, [watch], batch_size=1)
    assert len(load(tmp_path / "state").steps) == 10
    model = helper.regression()
    helper.fit(model, x, y, [GradientHistory()], batch_size=1)
    helper.fit(model, x[:4], y[:4], [watch], batch_size=1)
    assert load(tmp_path / "state" / "run-2").steps.tolist() == [10, 11, 12, 13]
    with pytest.raises(ValueError, match="there are 2 runs"):
        load(tmp_path / "state")


def test_the_record_is_beside_the_event_files(tmp_path):
    x, y = helper.regression_data(4)
    watch = watched(tmp_path / "logs", state_dir=tmp_path / "state")
    helper.fit(helper.regression(), x, y, [watch], batch_size=1)
    assert len(load(tmp_path / "logs").steps) == 4
    with pytest.raises(ValueError, match=r"has no record\.gwr"):
        load(tmp_path / "state")


def test_the_record_of_another_run_stays(tmp_path):
    x, y = helper.regression_data(10)
    options = {"directory": tmp_path / "logs", "state_dir": tmp_path / "state"}
    helper.fit(helper.regression(), x, y, [watched(tmp_path / "logs")], batch_size=1)
    second = helper.regression()
    helper.fit(second, x[:4], y[:4], [watched(**options)], batch_size=1)
    assert len(load(tmp_path / "logs" / "gradwatch").steps) == 10
    assert len(load(tmp_path / "logs" / "run-2").steps) == 4


def test_two_callbacks_of_one_directory(tmp_path):
    x, y = helper.regression_data(12)
    callbacks = [GradientTensorBoard(tmp_path), watched(tmp_path), GradientHistory()]
    helper.fit(helper.regression(), x, y, callbacks, batch_size=1)
    assert_equal_to_history(load(tmp_path), callbacks[-1])


@pytest.mark.thorough
def test_a_layer_that_is_unfrozen(tmp_path):
    x, y = helper.regression_data(12)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, name="below")])
    model.add(keras.layers.Dense(3, name="above"))
    model.layers[0].trainable = False
    seen, watch = GradientHistory(), watched(tmp_path)
    for trainable in (False, True):
        model.layers[0].trainable = trainable
        model.compile("sgd", "mse")
        helper.fit(model, x, y, [watch, seen], batch_size=1)
    run = load(tmp_path)
    assert_equal_to_history(run, seen)
    below = run[next(v for v in run.variables if "below/kernel" in v)]
    assert np.isnan(below[:12]).all() and np.isfinite(below[12:]).all()


def test_a_directory_with_several_runs(tmp_path):
    x, y = helper.regression_data(4)
    helper.fit(helper.regression(), x, y, [watched(tmp_path / "a")])
    shutil.copytree(tmp_path / "a", tmp_path / "sub" / "b")
    with pytest.raises(ValueError, match="2 runs") as error:
        load(tmp_path)
    for run in (tmp_path / "a", tmp_path / "sub" / "b"):
        assert str(run / "gradwatch") in str(error.value)
    assert load(tmp_path / "sub").name == "b"
    for missing in (tmp_path / "none", tmp_path / "a" / "gradwatch" / "record.gwr"):
        with pytest.raises(ValueError, match="there is no directory"):
            load(missing)


def test_without_keras(tmp_path):
    """Where Keras cannot be imported, runs can be read, and nothing else."""
    x, y = helper.regression_data(4)
    helper.fit(helper.regression(), x, y, [watched(tmp_path)], batch_size=1)
    code = """
import sys
sys.modules.update(dict.fromkeys(["keras", "tensorflow", "jax", "torch"]))
from keras_gradwatch.records.load import load
import keras_gradwatch
assert keras_gradwatch.load is load
print(load(sys.argv[1]))
for name in ("GradWatch", "missing"):
    try:
        getattr(keras_gradwatch, name)
    except (ImportError, AttributeError) as error:
        print(type(error).__name__, error)
"""
    run, first, second = helper.run_python(code, tmp_path).splitlines()
    assert run == repr(load(tmp_path))
    assert first.startswith("ImportError keras_gradwatch.GradWatch needs Keras, which")
    assert second.startswith("AttributeError") and "'missing'" in second


def test_as_a_dataframe_and_a_plot(tmp_path):
    x, y = helper.regression_data(4)
    helper.fit(helper.regression(), x, y, [watched(tmp_path)], batch_size=1)
    run = load(tmp_path)
    assert len(run.plot().axes) == 3
    pytest.importorskip("pandas")
    frame = run.to_dataframe()
    assert frame.index.tolist() == [0, 1, 2, 3]
    assert frame[f"{run.variables[0]}:norm"].tolist() == run.norms[:, 0].tolist()


def test_the_second_run_of_a_directory_has_a_page_of_its_own(tmp_path):
    x, y = helper.regression_data(10)
    watches = [watched(tmp_path / "logs") for _ in range(2)]
    for watch, rows in zip(watches, (10, 4), strict=True):
        part = x[:rows], y[:rows]
        helper.fit(helper.regression(seed=rows), *part, [watch], batch_size=1)
    runs = [load(watch.record_dir) for watch in watches]
    assert [len(run.steps) for run in runs] == [10, 4]
