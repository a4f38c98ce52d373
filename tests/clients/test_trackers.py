"""Trackers, with their own clients and without a network."""

import copy
import pathlib
import pickle
import struct

import keras
import numpy as np
import pytest

from keras_gradwatch import loggers
from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.tensorboard import tags
from tests import helper

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore"),  # what the clients warn of
]

REASON = "{} is not installed here; `make test-clients` brings it"


class Kept(loggers.Logger):
    """Keeps the points."""

    def __init__(self):
        self.points = []

    def on_log(self, step, values):
        self.points.append((step, values))


def trained(log, **options):
    """A run with two bad batches that is logged: the callback."""
    watch = GradWatch(log=log, update_freq=5, verbose=0, **options)
    x, y = helper.regression_data(240)
    x = helper.with_nan(helper.with_nan(x, 1, 8), 4, 8)
    helper.fit(helper.regression(), x, y, [watch])
    return watch


# -- wandb -----------------------------------------------------------------------------


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason=REASON.format("wandb"))
    monkeypatch.chdir(tmp_path)
    for name, value in (("MODE", "offline"), ("DIR", tmp_path), ("SILENT", "true")):
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    wandb.teardown()  # it keeps the settings of its first run
    yield wandb
    wandb.teardown()


def records(path):
    """The records of a run, from its file.

    It is a log of LevelDB behind a header of 7 bytes: blocks of 32 KiB, with records in
    pieces that have their checksum, length and kind ahead.
    """
    from wandb.proto import wandb_internal_pb2

    data, place, whole, found = pathlib.Path(path).read_bytes(), 7, b"", []
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole of it, or its last piece
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def of(kind, found):
    return [getattr(r, kind) for r in found if r.WhichOneof("record_type") == kind]


def history(found):
    """The rows of a run's history, a list of dicts of the raw JSON."""
    return [
        {"/".join(i.nested_key) or i.key: i.value_json for i in row.item}
        for row in of("history", found)
    ]


def test_a_run_of_wandb_gets_all_of_it(wandb):
    kept = Kept()
    with wandb.init(project="digits") as run:
        watch = trained([kept, loggers.WandbLog()], per_variable=True)
        assert wandb.run is run  # left open
        path = run.settings.sync_file
    wandb.teardown()  # writes the rest of the file
    found = records(path)
    points = [row for row in history(found) if tags.LEARNING_RATE in row]
    steps = [int(row["gradwatch/step"]) for row in points]
    assert steps == [step for step, _ in kept.points]
    for row, (_, values) in zip(points, kept.points, strict=True):
        assert {tag: float(row[tag]) for tag in values} == values
    assert any(key.startswith("gradwatch/heatmap") for key in history(found)[-1])
    axis = {m.glob_name: m.step_metric for m in of("metric", found) if m.glob_name}
    assert axis == {"gradwatch*": "gradwatch/step"}
    alerts = of("alert", found)
    assert [alert.title for alert in alerts] == ["gradwatch: nonfinite"] * 2
    assert [alert.text for alert in alerts] == [e.message for e in watch.events]
    (artifact,) = of("artifact", found)
    names = {entry.path for entry in artifact.manifest.contents}
    assert names == {"report.md", "report.txt", "heatmap.png"}


def test_other_callbacks_log_to_the_same_run(wandb):
    from wandb.integration.keras import WandbMetricsLogger

    with wandb.init(project="digits") as run:
        x, y = helper.regression_data(40)
        own = WandbMetricsLogger(log_freq="batch")
        watch = GradientHistory(
            log=loggers.WandbLog(run), log_batches=True, update_freq=1
        )
        helper.fit(helper.regression(), x, y, [own, watch], epochs=2)
        path = run.settings.sync_file
    wandb.teardown()
    rows = history(records(path))
    norms = [float(row["batch/grad_norm"]) for row in rows if "batch/grad_norm" in row]
    np.testing.assert_allclose(norms, watch.global_norm)
    steps = [int(r["gradwatch/step"]) for r in rows if tags.GRAD_NORM in r]
    assert steps == list(range(10))


def test_runs_of_wandb_that_are_started_are_finished(wandb, tmp_path):
    log = loggers.WandbLog(start={"project": "digits"})
    watch = trained(log)
    assert wandb.run is None
    again = pickle.loads(pickle.dumps(watch))
    assert again.report() == watch.report()
    x, y = helper.regression_data(8)
    helper.fit(helper.regression(), x, y, [copy.deepcopy(watch)])
    assert len(list(tmp_path.rglob("*.wandb"))) == 2


def test_what_wandb_cannot_log_to(wandb):
    with pytest.raises(ValueError, match=r"WandbLog: `run` must be.*'digits'"):
        loggers.WandbLog("digits")
    with pytest.raises(ValueError, match=r"WandbLog: `start` must be a dict.*'digits'"):
        loggers.WandbLog(start="digits")
    with pytest.raises(ValueError, match=r"WandbLog: there is no active run.*start"):
        trained(loggers.WandbLog())
    with (
        wandb.init(project="digits") as run,
        pytest.raises(ValueError, match="mutually exclusive"),
    ):
        loggers.WandbLog(run, start={})


# -- MLflow ----------------------------------------------------------------------------


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason=REASON.format("mlflow"))
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(
        experiment_id=mlflow.create_experiment("digits", str(tmp_path / "artifacts"))
    )
    yield mlflow
    while mlflow.active_run():
        mlflow.end_run()


def test_a_run_of_mlflow_gets_all_of_it(mlflow, tmp_path):
    kept = Kept()
    with mlflow.start_run() as run:
        watch = trained([kept, loggers.MLflowLog()], per_variable=True)
        assert mlflow.active_run().info.run_id == run.info.run_id  # left open
    client, run_id = mlflow.MlflowClient(), run.info.run_id
    for tag in kept.points[0][1]:
        points = [(step, v[tag]) for step, v in kept.points if tag in v]
        logged = client.get_metric_history(run_id, tag)
        assert sorted((m.step, m.value) for m in logged) == points
    found = client.get_run(run_id).data.tags
    assert found["gradwatch.nonfinite"] == watch.events[0].message
    assert found["gradwatch.events"] == "2"
    artifacts = {a.path for a in client.list_artifacts(run_id, "gradwatch")}
    names = ("heatmap.png", "report.md", "report.txt")
    assert artifacts == {f"gradwatch/{name}" for name in names}
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/gradwatch/report.txt")
    assert text == str(watch.report())


def test_keras_batch_metrics_of_mlflow(mlflow):
    with mlflow.start_run() as run:
        x, y = helper.regression_data(40)
        own = mlflow.keras.MlflowCallback(log_every_epoch=False, log_every_n_steps=1)
        watch = GradientHistory(log_batches=True)
        helper.fit(helper.regression(), x, y, [own, watch])
    logged = mlflow.MlflowClient().get_metric_history(run.info.run_id, "grad_norm")
    values = [m.value for m in sorted(logged, key=lambda m: m.step)]
    np.testing.assert_allclose(values, watch.global_norm, 1e-6)


def test_runs_of_mlflow_that_are_started_are_ended(mlflow):
    log = loggers.MLflowLog(start={"run_name": "first"})
    watch = trained(log)
    assert mlflow.active_run() is None
    x, y = helper.regression_data(8)
    helper.fit(helper.regression(), x, y, [copy.deepcopy(watch)])
    again = pickle.loads(pickle.dumps(watch))
    assert again.report() == watch.report()
    runs = mlflow.search_runs(output_format="list")
    assert [run.info.run_name for run in runs] == ["first", "first"]
    assert [run.info.status for run in runs] == ["FINISHED", "FINISHED"]
    by_id = loggers.MLflowLog(runs[0].info.run_id)
    helper.fit(helper.regression(), x, y, [GradientHistory(log=by_id)])
    assert mlflow.active_run() is None
    assert len(mlflow.search_runs(output_format="list")) == 2


def test_names_that_mlflow_does_not_allow(mlflow):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="a>b")])
    model.compile("sgd", "mse")
    log = loggers.MLflowLog(start={})
    watch = GradWatch(log=log, per_variable=True, verbose=0)
    helper.fit(model, *helper.regression_data(8), [watch])
    (run,) = mlflow.search_runs(output_format="list")
    assert any(name.endswith("a_b/kernel/norm") for name in run.data.metrics)


def test_what_mlflow_cannot_log_to(mlflow):
    with pytest.raises(ValueError, match=r"MLflowLog: `run_id` must be.*3"):
        loggers.MLflowLog(3)
    with pytest.raises(ValueError, match=r"MLflowLog: `start` must be a dict.*'x'"):
        loggers.MLflowLog(start="x")
    with pytest.raises(ValueError, match="mutually exclusive"):
        loggers.MLflowLog("3", start={})
    with pytest.raises(ValueError, match=r"MLflowLog: there is no active run.*start"):
        trained(loggers.MLflowLog())
