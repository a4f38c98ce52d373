"""What is left on disk of an incident is what was there."""

import csv
import hashlib
import json

import keras
import numpy as np
import pytest

from keras_gradwatch.backends.access import Access
from keras_gradwatch.callbacks import (
    ExplosionError,
    GradientHistory,
    GradWatch,
    TerminateOnExplosion,
)
from keras_gradwatch.controller.plan import Plan, Request
from keras_gradwatch.detectors import NonFinite
from keras_gradwatch.records import incidents
from keras_gradwatch.reports import forensics
from tests import helper

ENOUGH = 10**6  # bytes
FILES = set(incidents.FILES)


def watching(directory, save_batch=ENOUGH, **kwargs):
    """A `GradWatch` whose step is traced faster: nothing judges the update."""
    few = {"trust_bound": None, "max_rewinds": 0, "verbose": 0}
    return GradWatch(directory, save_batch=save_batch, **few, **kwargs)


def eager():
    """A model that is not traced, for what only the host does."""
    return helper.regression(run_eagerly=True)


@pytest.fixture(scope="module")
def traced():
    """A model that is traced once, and goes on from test to test."""
    return helper.regression()


def folders(directory):
    """The directories of incidents, by name."""
    return {p.name: p for p in (directory / "gradwatch" / "events").iterdir()}


def only(directory):
    (folder,) = folders(directory).values()
    return folder


def event_file(folder):
    return json.loads((folder / "event.json").read_text())


def table(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


# -- the batch -----------------------------------------------------------------------


def test_the_very_batch(tmp_path):
    """The last one, of 4 rows where all others have 8."""
    x, y = helper.regression_data(44)
    x = helper.with_nan(x, 5, 8, np.s_[:, 1])
    weight = np.arange(44, dtype="float32")
    helper.fit(eager(), x, y, [watching(tmp_path)], sample_weight=weight)
    folder = only(tmp_path)
    assert folder.name == "step_0000005"
    assert event_file(folder)["batch"] == "batch.npz"
    with np.load(folder / "batch.npz") as batch:
        helper.assert_same(dict(batch), {"0": x[40:], "1": y[40:], "2": weight[40:]})


def test_names_of_a_nested_batch(tmp_path):
    """With a name that `numpy.savez` would not take."""
    inputs = {
        "file": keras.Input((5,), name="file"),
        "b": keras.Input((1,), name="b", dtype="int32"),
    }
    outputs = keras.layers.Dense(3)(inputs["file"])
    outputs += keras.ops.cast(inputs["b"], "float32")
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = helper.regression_data(8)
    data = {"file": x.copy(), "b": np.arange(8)[:, None]}
    data["file"][3, 2] = np.inf
    helper.fit(model, data, y, [watching(tmp_path)])
    with np.load(only(tmp_path) / "batch.npz") as batch:
        expected = {"0/file": data["file"], "0/b": data["b"], "1": y}
        helper.assert_same(dict(batch), expected)


def test_the_first_batch_of_an_incident_and_of_each_fit(traced, tmp_path):
    x, y = helper.regression_data(80)
    bad = helper.with_nan(helper.with_nan(x, 3, 8), 5, 8)
    callback = watching(tmp_path)
    helper.fit(traced, bad, y, [callback])
    # This one is by itself, although the last fit's were just before.
    helper.fit(traced, helper.with_nan(x, 0, 8), y, [callback])
    first, second = (folder for _, folder in sorted(folders(tmp_path).items()))
    begin = traced.gradwatch.step - 20
    for folder, steps, rows in (
        (first, [3, 5], np.s_[24:32]),
        (second, [10], np.s_[:8]),
    ):
        assert folder.name == f"step_{begin + steps[0]:07d}"
        events = event_file(folder)["events"]
        assert [e["step"] - begin for e in events] == steps
        with np.load(folder / "batch.npz") as batch:
            np.testing.assert_array_equal(batch["1"], y[rows])


def test_outside_of_fit_nothing_is_kept(traced, tmp_path):
    x, y = helper.regression_data(8)
    helper.fit(traced, x, y, [watching(tmp_path)])
    traced.train_on_batch(np.full_like(x, np.nan), y)
    batch, why_not = traced.gradwatch.batches.take(traced.gradwatch.step - 1)
    assert batch is None and why_not
    traced.set_weights([np.zeros((5, 3)), np.zeros(3)])  # they are NaN now


def test_nothing_is_kept_without_being_asked(tmp_path):
    x, y = helper.regression_data(24)
    model = eager()
    helper.fit(model, helper.with_nan(x, 1, 8), y, [watching(tmp_path, None)])
    assert event_file(only(tmp_path))["batch"] is None
    assert model.gradwatch.batches.take(1)[0] is None


def test_only_whether_batches_are_kept_is_built_into_the_step():
    off, small, large = (
        Plan([Request("a", save_batch=size)]).structure() for size in (0, 1, 2)
    )
    assert off != small and small == large


@pytest.mark.tensorflow
def test_of_two_incidents_in_one_drain_the_later_batch(tmp_path, capsys):
    """All in one execution, and the later one is the last batch, of 1 row."""
    x, y = helper.regression_data(203)
    bad = helper.with_nan(helper.with_nan(x, 20, 2), 101, 2)
    model = helper.regression(steps_per_execution=102)
    helper.fit(model, bad, y, [watching(tmp_path)], batch_size=2)
    found = folders(tmp_path)
    assert "a later incident" in event_file(found["step_0000020"])["batch"]
    assert event_file(found["step_0000101"])["batch"] == "batch.npz"
    with np.load(found["step_0000101"] / "batch.npz") as batch:
        helper.assert_same(dict(batch), {"0": bad[202:], "1": y[202:]})
    assert capsys.readouterr().out.count("a later incident replaced it") == 1


def regression_under(strategy):
    with strategy.scope():
        return helper.regression()


NOT_KEPT = {
    "XLA": (
        lambda s: helper.regression(jit_compile=True),
        ENOUGH,
        "`jit_compile=False`",
    ),
    "replicas": (regression_under, ENOUGH, "`tf.distribute` strategy"),
    "over the size": (lambda s: eager(), 255, "has 256 bytes"),
}


@pytest.mark.tensorflow
@pytest.mark.parametrize("why", NOT_KEPT)
def test_a_batch_that_is_not_kept(why, strategy, tmp_path, capsys):
    make, size, words = NOT_KEPT[why]
    x, y = helper.regression_data(24)
    model = make(strategy)
    bad = helper.with_nan(x, 2, 8)
    helper.fit(model, bad, y, [watching(tmp_path, size)], epochs=2)
    folder = only(tmp_path)
    assert {p.name for p in folder.iterdir()} == set(incidents.FILES) - {"batch.npz"}
    assert words in event_file(folder)["batch"]
    printed = capsys.readouterr().out
    line = "[gradwatch] `save_batch`: the batch of step 2"
    assert printed.count("\n") == printed.count(line) == 1
    assert words in printed
    assert helper.all_finite(model.get_weights())


@pytest.mark.tensorflow
@pytest.mark.parametrize("kind", ["RaggedTensor", "string"])
def test_a_batch_of_something_else(kind, tmp_path, capsys):
    import tensorflow as tf

    class Custom(keras.Sequential):
        def train_step(self, data):
            return super().train_step(data[:2])

    keras.utils.set_random_seed(0)
    model = Custom([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    x, y = helper.regression_data(16)
    extra = tf.constant(["a"] * 16)
    if kind == "RaggedTensor":
        extra = tf.ragged.constant([[1], [2, 3]] * 8)
    data = tf.data.Dataset.from_tensor_slices((helper.with_nan(x, 1, 8), y, extra))
    model.fit(data.batch(8), verbose=0, shuffle=False, callbacks=[watching(tmp_path)])
    words = f"batches with a {kind} (at `2`) are not saved"
    assert words in event_file(only(tmp_path))["batch"]
    assert words in capsys.readouterr().out


@pytest.mark.parametrize("size", [0, -1, 1.5, True, "1MB"])
def test_bad_sizes(size, tmp_path):
    with pytest.raises(ValueError, match=rf"`save_batch`.*>= 1.*save_batch={size!r}"):
        GradWatch(tmp_path, save_batch=size)


def test_a_size_without_a_directory():
    with pytest.raises(ValueError, match=r"`save_batch` needs.*`log_dir`.*=100"):
        GradWatch(save_batch=100)
    assert GradWatch(state_dir="state", save_batch=100).save_batch == 100


# -- the rows and the weights --------------------------------------------------------


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """A run of 612 steps, in which every 51st is bad: 12 incidents.

    Returns:
        `(directory, its history, {step: weights before it}, weights' paths)`.
    """
    directory = tmp_path_factory.mktemp("long")
    x, y = helper.regression_data(12 * 51)
    x[::51] = np.nan
    weights = {}

    class Look(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            weights[batch] = self.model.get_weights()

    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(3), keras.layers.BatchNormalization()]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile(keras.optimizers.Adam(0.25), "mse")
    callback = watching(directory, max_events=1000, detector=NonFinite())
    helper.fit(model, x, y, [Look(), callback], batch_size=1)
    return directory, callback.history, weights, [v.path for v in model.weights]


@pytest.mark.thorough
def test_incidents_of_a_fit_are_bounded(long_run):
    directory, history, _, _ = long_run
    assert len(history.events) == 12
    assert sorted(folders(directory)) == [f"step_{51 * i:07d}" for i in range(10)]
    for name, folder in folders(directory).items():
        assert event_file(folder)["step"] == int(name[5:])
        assert [e["step"] for e in event_file(folder)["events"]] == [int(name[5:])]
        assert {p.name for p in folder.iterdir()} == FILES


@pytest.mark.parametrize(("step", "begin", "end"), [(51, 0, 102), (408, 308, 459)])
def test_rows_are_those_of_the_history(long_run, step, begin, end):
    """From 100 steps before to 50 after: of several drains."""
    directory, history, _, paths = long_run
    history.to_csv(directory / "whole.csv")
    header, *rows = table(directory / "whole.csv")
    assert len(rows) == 612 and f"{paths[0]}:norm" in header
    written = table(folders(directory)[f"step_{step:07d}"] / "rows.csv")
    assert written == [header, *rows[begin:end]]
    assert rows[step][header.index("applied")] == "0"


def test_the_weights_are_told_apart(long_run):
    directory, history, weights, paths = long_run
    written = json.loads(
        (folders(directory)["step_0000102"] / "weights.json").read_text()
    )
    steps = written["steps"]
    assert 102 < steps <= 102 + 51
    expected = []
    for path, value in zip(paths, weights[steps], strict=True):
        exact = value.astype("float64")
        expected.append(
            {
                "path": path,
                "shape": list(value.shape),
                "dtype": "float32",
                "norm": pytest.approx(np.sqrt((exact**2).sum()), rel=1e-12),
                "min": value.min(),
                "max": value.max(),
                "nonfinite_count": 0,
                "sha256": hashlib.sha256(value.tobytes()).hexdigest(),
            }
        )
    assert written["weights"] == expected and len(expected) == 6
    assert written["updates"] == history.applied[:steps].sum() == steps - 3
    assert written["learning_rate"] == 0.25


def test_fingerprint_of_values_that_are_not_sound():
    values = np.array([[np.nan, 3.0, -np.inf], [-4.0, 0.0, 0.0]], "float32")
    made = [
        keras.Variable(values, name="bad"),
        keras.Variable(np.full(4, 2e38, "float32")),
        keras.Variable(np.full(2, np.nan, "float32")),
        keras.Variable(np.array([3, -4]), dtype="int32", trainable=False),
        keras.Variable(np.array([1.5, 2.0]), dtype="bfloat16"),
        keras.Variable(np.zeros((0, 3), "float32")),
    ]
    prints = [forensics.fingerprint(v, Access()) for v in made]
    json.dumps(prints, allow_nan=False)
    keys = ("norm", "min", "max", "nonfinite_count")
    assert [[p[k] for k in keys] for p in prints] == [
        [5.0, -4.0, 3.0, 2],
        [pytest.approx(4e38, rel=1e-6), *[pytest.approx(2e38, rel=1e-6)] * 2, 0],
        [0.0, None, None, 2],
        [5.0, -4.0, 3.0, 0],
        [2.5, 1.5, 2.0, 0],
        [0.0, None, None, 0],
    ]
    assert prints[0]["path"] == "bad" and prints[0]["shape"] == [2, 3]
    assert prints[0]["sha256"] == hashlib.sha256(values.tobytes()).hexdigest()
    # 1.5 and 2.0 in bfloat16, little-endian: the upper halves of their float32.
    assert prints[4]["sha256"] == hashlib.sha256(b"\xc0\x3f\x00\x40").hexdigest()


# -- how much, and where -------------------------------------------------------------


def test_one_long_incident_is_one_directory(traced, tmp_path):
    x, y = helper.regression_data(110)
    x[[5, 55, 105]] = np.nan
    helper.fit(traced, x, y, [watching(tmp_path)], batch_size=1)
    begin = traced.gradwatch.step - 110
    content = event_file(only(tmp_path))
    assert content["step"] == begin + 5
    assert [e["step"] - begin for e in content["events"]] == [5, 55, 105]
    assert table(only(tmp_path) / "rows.csv")[-1][0] == str(begin + 55)


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = helper.regression_data(24)
    helper.fit(eager(), helper.with_nan(x, 1, 8), y, [watching(None, None)])
    assert list(tmp_path.iterdir()) == []


def test_idle_only_the_report_is_written(tmp_path):
    callback = watching(None, state_dir=tmp_path)
    helper.fit(eager(), *helper.regression_data(24), [callback])
    names = {p.name for p in tmp_path.iterdir()}
    reports = {"report.txt", "report.json", "run.json", "record.gwr"}
    assert names == {"state.jsonl", "events.jsonl", *reports}
    assert (tmp_path / "report.txt").read_text() == callback.report() + "\n"


def test_a_directory_that_cannot_be_written_ends_no_training(
    traced, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(forensics, "MAX_INCIDENTS", 1)
    (tmp_path / "gradwatch").mkdir()
    (tmp_path / "gradwatch" / "events").write_text("")
    x, y = helper.regression_data(110)
    x[[5, 57, 109]] = np.nan
    history = GradientHistory()
    helper.fit(traced, x, y, [watching(tmp_path), history], batch_size=1)
    assert len(history.steps) == 110 and len(history.events) == 3
    printed = capsys.readouterr().out
    assert printed.count("no longer written to") == printed.count("\n") == 1


def test_more_incidents_than_are_written_are_told_once(
    traced, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(forensics, "MAX_INCIDENTS", 1)
    x, y = helper.regression_data(110)
    x[[5, 57, 109]] = np.nan
    helper.fit(traced, x, y, [watching(tmp_path)], batch_size=1)
    assert only(tmp_path).name == f"step_{traced.gradwatch.step - 105:07d}"
    printed = capsys.readouterr().out
    assert printed.count("more than 1 incidents") == printed.count("\n") == 1


def test_a_new_run_leaves_alone_what_another_left(tmp_path):
    x, y = helper.regression_data(24)
    bad = helper.with_nan(x, 1, 8)
    helper.fit(eager(), bad, y, [watching(tmp_path)])
    before = sorted(only(tmp_path).iterdir())
    helper.fit(eager(), x, y, [watching(tmp_path)])
    assert sorted(only(tmp_path).iterdir()) == before and before
    assert (tmp_path / "run-2" / "gradwatch" / "report.txt").exists()
    assert not (tmp_path / "run-2" / "gradwatch" / "events").exists()


@pytest.mark.thorough
def test_a_resumed_run_keeps_what_came_before(tmp_path):
    x, y = helper.regression_data(24)
    bad = helper.with_nan(helper.with_nan(x, 0, 8), 2, 8)
    model = eager()
    helper.fit(model, bad, y, [watching(tmp_path)])
    model.save(tmp_path / "model.keras")
    helper.fit(model, bad, y, [watching(tmp_path)])
    assert sorted(folders(tmp_path)) == ["step_0000000", "step_0000003"]
    own = tmp_path / "gradwatch" / "events" / "step_0000003" / "mine.txt"
    own.write_text("not ours")
    other = tmp_path / "gradwatch" / "events" / "step_1"
    other.mkdir()
    # A new process goes on from what was saved: step 3 is to come again.
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    loaded.run_eagerly = True
    callback = watching(None, state_dir=tmp_path / "gradwatch")
    helper.fit(loaded, x, y, [callback])
    assert callback.history.steps.tolist() == [3, 4, 5]
    assert [path.name for path in own.parent.iterdir()] == ["mine.txt"]
    assert sorted(folders(tmp_path)) == ["step_0000000", "step_0000003", "step_1"]
    assert other.is_dir()


def test_the_report_is_there_when_training_is_halted(tmp_path):
    x, y = helper.regression_data(120)
    callback = watching(tmp_path)
    stop = TerminateOnExplosion(mode="raise", verbose=0)
    with pytest.raises(ExplosionError):
        helper.fit(eager(), helper.with_nan(x, 3, 8), y, [callback, stop])
    text = (tmp_path / "gradwatch" / "report.txt").read_text()
    assert "training stopped" in text.splitlines()[1]
    assert text == callback.report() + "\n"
