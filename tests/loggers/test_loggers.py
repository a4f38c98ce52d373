"""What loggers get of a real fit: what TensorBoard gets."""

import copy
import csv
import json
import pickle

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_gradwatch.callbacks import (
    GradientHistory,
    GradientTensorBoard,
    GradWatch,
    SkipOnExplosion,
)
from keras_gradwatch.loggers import CsvLog, JsonLinesLog, Logger
from keras_gradwatch.tensorboard import tags
from tests import helper


class Kept(Logger):
    """Keeps every call."""

    def __init__(self):
        self.begun, self.points, self.events, self.ended = [], [], [], []

    def on_begin(self, step):
        self.begun.append(step)

    def on_log(self, step, values):
        self.points.append((step, values))

    def on_event(self, event):
        self.events.append(event)

    def on_end(self, report, heatmap):
        self.ended.append((report, heatmap))


def on_the_board(log_dir):
    """Dict of each step to its scalars, from the event file in `log_dir`."""
    found = EventAccumulator(str(log_dir / "gradwatch"), {"tensors": 0}).Reload()
    points = {}
    for tag in found.Tags()["tensors"]:
        kind = found.SummaryMetadata(tag).plugin_data.plugin_name
        if kind == "scalars":
            for event in found.Tensors(tag):
                value = float(tensor_util.make_ndarray(event.tensor_proto))
                points.setdefault(event.step, {})[tag] = value
    return points


def trained(*callbacks, steps=120, bad=70, epochs=2, **kwargs):
    x, y = helper.regression_data(steps)
    x = x if bad is None else helper.with_nan(x, bad, 1)
    model = helper.regression()
    helper.fit(model, x, y, callbacks, batch_size=1, epochs=epochs, **kwargs)
    return model


@pytest.mark.parametrize(
    "make",
    [
        lambda path, **kwargs: GradWatch(path, verbose=0, **kwargs),
        pytest.param(GradientTensorBoard, marks=pytest.mark.thorough),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        {"update_freq": 7},
        {"update_freq": "epoch", "per_variable": True, "include": "kernel"},
    ],
)
def test_a_logger_gets_what_tensorboard_gets(make, options, tmp_path):
    kept = Kept()
    trained(make(tmp_path, log=kept, **options))
    points = dict(kept.points)
    assert [step for step, _ in kept.points] == sorted(points)
    expected = on_the_board(tmp_path)
    assert points.keys() == expected.keys() and len(points) > 10
    for step, values in points.items():
        assert values.keys() == expected[step].keys()
        for tag, value in values.items():
            assert type(value) is float and np.isfinite(value)
            assert np.float32(value) == np.float32(expected[step][tag])
    per_variable = [tag for tag in points[0] if tag.startswith("gradwatch_layer")]
    assert len(per_variable) == (9 if "per_variable" in options else 0)


@pytest.mark.parametrize("make", helper.few([GradWatch], [GradWatch, GradientHistory]))
def test_events_report_and_heatmap(make, capsys):
    kept, also = Kept(), Kept()
    callback = make(log=[kept, also])
    model = trained(callback, steps=24, bad=3, epochs=1)
    assert kept.events == callback.events != []
    assert kept.begun == [0]
    ((report, heatmap),) = kept.ended
    assert report == callback.report() and report.fixes
    assert heatmap.dtype == np.uint8 and heatmap.shape[1:] == (700, 3)
    assert [len(calls) for calls in vars(also).values()] == [
        len(calls) for calls in vars(kept).values()
    ]
    helper.fit(model, *helper.regression_data(8), [callback])
    assert kept.begun == [0, 24] and len(kept.ended) == 2
    assert kept.points[-1][0] == 24


def test_beside_other_callbacks_and_without_steps_in_between():
    """Rows are handed over once, whoever reads them."""
    kept, seen = Kept(), GradientHistory()
    watch = GradWatch(log=kept, update_freq="batch", verbose=0)
    trained(seen, SkipOnExplosion(verbose=0), watch, steps=12, bad=5, epochs=1)
    assert [step for step, _ in kept.points] == list(range(12))
    norms = [values.get(tags.GRAD_NORM, np.nan) for _, values in kept.points]
    # The NaN of the skipped step is left out.
    expected = np.where(seen.applied, seen.global_norm, np.nan)
    np.testing.assert_array_equal(np.float32(norms), expected)


def test_a_logger_that_fails_is_left_out(capsys):
    """Training continues, and so do the other loggers."""

    class Lost(Kept):
        def on_log(self, step, values):
            super().on_log(step, values)
            if step:
                raise ConnectionError("no route to host")

    lost, kept = Lost(), Kept()
    history = GradientHistory(log=[lost, kept], update_freq=5)
    _, _ = trained(history, bad=None, epochs=1), capsys.readouterr()
    assert len(lost.points) == 2 and not lost.ended
    assert len(kept.points) > 20 and len(kept.ended) == 1
    trained(GradientHistory(log=lost, update_freq=5), bad=None, epochs=1)
    assert "Lost.on_log failed" in (out := capsys.readouterr().out)
    assert out.count("ConnectionError: no route to host") == 1
    assert lost.begun == [0, 0]


def test_a_fit_that_was_interrupted_is_ended_by_the_next_one():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 3:
                raise KeyboardInterrupt

    kept = Kept()
    history = GradientHistory(log=kept, update_freq=1)
    x, y = helper.regression_data(8)
    model = helper.regression()
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [history, Interrupt()], batch_size=1)
    helper.fit(model, x, y, [history], batch_size=1)
    assert kept.begun == [0, 4] and len(kept.ended) == 2
    assert [step for step, _ in kept.points] == list(range(12))


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_of(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line, parse_constant=pytest.fail) for line in file]


def test_files_have_every_point(tmp_path):
    kept = Kept()
    table, lines = CsvLog(tmp_path / "a/x.csv"), JsonLinesLog(tmp_path / "b/x.jsonl")
    watch = GradWatch(log=[kept, table, lines], update_freq=5, verbose=0)
    trained(watch, steps=24, bad=3, epochs=1)
    rows, written = rows_of(table.path), lines_of(lines.path)
    assert set(rows[0]) == {"step", *tags.SCALARS, *tags.HOLDING, *tags.SCALING}
    for (step, values), row in zip(kept.points, rows, strict=True):
        there = {tag: float(v) for tag, v in row.items() if v and tag != "step"}
        assert int(row["step"]) == step and there == values
    points = [line for line in written if tags.LEARNING_RATE in line]
    assert points == [{"step": step, **values} for step, values in kept.points]
    events = [line["event"] for line in written if "event" in line]
    assert [e["message"] for e in events] == [e.message for e in watch.events]
    assert written[-1]["report"]["verdict"] == watch.report().verdict


@pytest.mark.thorough
def test_new_columns_widen_the_table(tmp_path):
    table = CsvLog(tmp_path / "x.csv")
    watch = GradWatch(log=table, per_variable=True, update_freq=1, verbose=0)
    x, y = helper.regression_data(4)
    helper.fit(helper.regression(), x, y, [watch], batch_size=1)
    before = rows_of(table.path)
    other = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="other")])
    other.compile("sgd", "mse")
    helper.fit(other, x, y, [watch], batch_size=1)
    rows = rows_of(table.path)
    assert len(rows) == 8 and len(rows[0]) > len(before[0])
    assert [{k: row[k] for k in before[0]} for row in rows[:4]] == before


@pytest.mark.thorough
@pytest.mark.parametrize("make", [CsvLog, JsonLinesLog])
def test_no_file_is_overwritten(make, tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("step\n")
    log = make(path)
    used = GradientHistory(log=log)
    x, y = helper.regression_data(8)
    model = helper.regression()
    helper.fit(model, x, y, [used])
    size = len((tmp_path / "log-2.txt").read_text().splitlines())
    helper.fit(model, x, y, [used])
    assert len((tmp_path / "log-2.txt").read_text().splitlines()) > size
    helper.fit(helper.regression(), x, y, [copy.deepcopy(used)])
    assert (tmp_path / "log-3.txt").exists() and path.read_text() == "step\n"
    helper.fit(helper.regression(), x, y, [GradientHistory(log=make(path, True))])
    assert path.read_text().startswith("step") and len(path.read_text()) > 5
    again = pickle.loads(pickle.dumps(used))
    assert again.report() == used.report()


@pytest.mark.parametrize("make", [GradWatch, GradientHistory])
@pytest.mark.parametrize("log", ["run.csv", 3, [CsvLog("x"), None], CsvLog])
def test_a_log_that_is_none(make, log):
    with pytest.raises(ValueError, match=rf"{make.__name__}: `log` must be.*Received"):
        make(log=log)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (
            lambda: CsvLog(None),
            r"CsvLog: `path` must be the path of a local file.*None",
        ),
        (lambda: JsonLinesLog("s3://x"), r"JsonLinesLog: `path`.*s3"),
        (lambda: CsvLog("x", append="yes"), r"`append` must be True or False.*'yes'"),
        (lambda: GradWatch(log_batches=1), r"GradWatch: `log_batches`.*1"),
    ],
)
def test_a_bad_argument_is_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("name", ["WandbLog", "MLflowLog"])
def test_a_client_that_is_missing_is_named(name, monkeypatch):
    from keras_gradwatch import loggers

    package = name.removesuffix("Log").lower()
    monkeypatch.setitem(__import__("sys").modules, package, None)
    match = f"{name} needs {package}: `pip install {package}`"
    with pytest.raises(ImportError, match=match):
        getattr(loggers, name)()
