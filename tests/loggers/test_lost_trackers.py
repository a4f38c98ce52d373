"""Trackers that are lost, with stand-ins that keep runs as the clients do."""

import copy
import pickle
import sys
import types

import keras
import pytest

from keras_gradwatch.callbacks import GradientHistory
from keras_gradwatch.loggers import MLflowLog, WandbLog
from tests import helper


class Then(keras.callbacks.Callback):
    """Calls a function after the second batch of four."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.function()


def fit(model, log, *callbacks):
    x, y = helper.regression_data(32)
    helper.fit(model, x, y, [GradientHistory(log=log, update_freq=1), *callbacks])


def interrupt():
    raise KeyboardInterrupt


# -- MLflow ----------------------------------------------------------------------------


class Server:
    """MLflow's stack of active runs, and a server that may be down."""

    def __init__(self):
        self.stack, self.runs, self.ended, self.down = [], {}, [], False
        self.entities = types.SimpleNamespace(Metric=lambda *metric: metric)

    def fail(self, *_):
        if self.down:
            raise ConnectionError("no route to host")

    set_tag = log_text = log_image = fail

    def stop(self):
        self.down = True

    def active_run(self):
        return self.stack[-1] if self.stack else None

    def start_run(self, nested=False):
        if self.stack and not nested:
            raise Exception("Run is already active")
        self.fail()
        run_id = f"run {len(self.runs)}"
        self.runs[run_id] = []
        self.stack.append(types.SimpleNamespace(info=types.SimpleNamespace()))
        self.stack[-1].info.run_id = run_id
        return self.stack[-1]

    def end_run(self):
        self.set_terminated(self.stack.pop().info.run_id)

    def MlflowClient(self):
        return self

    def log_batch(self, run_id, metrics):
        self.fail()
        self.runs[run_id] += metrics

    def set_terminated(self, run_id):
        self.fail()
        self.ended.append(run_id)

    def steps(self, run_id):
        return sorted({step for *_, step in self.runs[run_id]})


@pytest.fixture
def mlflow(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "mlflow", server)
    return server


def test_a_server_that_is_down_when_fit_begins(mlflow, capsys):
    log, model = MLflowLog(start={}), helper.regression()
    mlflow.down = True
    fit(model, log)
    assert "MLflowLog.on_begin failed" in capsys.readouterr().out
    mlflow.down = False
    fit(model, log)
    assert mlflow.steps("run 0") == [4, 5, 6, 7] and mlflow.ended == ["run 0"]


def test_a_server_that_is_lost_during_fit(mlflow):
    log, model = MLflowLog(start={}), helper.regression()
    fit(model, log, Then(mlflow.stop))
    assert mlflow.stack == []
    mlflow.down = False
    fit(model, log)
    assert mlflow.steps("run 1") == [4, 5, 6, 7] and mlflow.ended == ["run 1"]


def test_a_run_of_mlflow_is_ended_after_ctrl_c(mlflow):
    model = helper.regression()
    with pytest.raises(KeyboardInterrupt):
        fit(model, MLflowLog(start={}), Then(interrupt))
    fit(model, MLflowLog(start={}))
    assert mlflow.ended == ["run 0", "run 1"] and mlflow.stack == []
    assert mlflow.steps("run 0") == [0, 1]
    log = MLflowLog(start={})
    with pytest.raises(KeyboardInterrupt):
        fit(model, log, Then(interrupt))
    for copied in (copy.deepcopy(log), pickle.loads(pickle.dumps(log))):
        copied.on_close()  # the run is not its own
    assert mlflow.ended == ["run 0", "run 1"]
    fit(helper.regression(), log)
    assert mlflow.ended == ["run 0", "run 1", "run 2", "run 3"]


def test_only_its_own_run_is_ended(mlflow):
    log, model = MLflowLog(start={}), helper.regression()
    fit(model, log, Then(lambda: mlflow.start_run(nested=True)))
    assert mlflow.ended == ["run 0"] and mlflow.active_run().info.run_id == "run 1"


# -- wandb -----------------------------------------------------------------------------


class Run:
    """A run of wandb; what is logged is lost."""

    id = "a"

    def __init__(self, client):
        self.client, self.steps, self.finished = client, [], False

    def define_metric(self, *_, **__):
        pass

    def log(self, values):
        self.client.fail()
        self.steps.append(values["gradwatch/step"])

    def finish(self):
        self.finished, self.client.run = True, None


class Client:
    """`wandb`, whose `init` returns the active run if there is one."""

    Run = Run

    def __init__(self):
        self.run, self.down = None, False

    def fail(self):
        if self.down:
            raise ConnectionError("no route to host")

    def init(self):
        self.fail()
        self.run = self.run or Run(self)
        return self.run


@pytest.fixture
def wandb(monkeypatch):
    client = Client()
    monkeypatch.setitem(sys.modules, "wandb", client)
    return client


def test_a_run_of_wandb_that_failed_is_finished(wandb, capsys):
    log, model, runs = WandbLog(start={}), helper.regression(), []

    def stop():
        wandb.down = True
        runs.append(wandb.run)

    fit(model, log, Then(stop))
    assert runs[0].finished and wandb.run is None
    fit(model, log)
    assert "WandbLog.on_begin failed" in capsys.readouterr().out
    own = wandb.run = Run(wandb)
    fit(model, log)
    assert wandb.run is own and not own.finished


def test_no_run_is_left_open_where_another_tracker_has_none(wandb, mlflow):
    log = [WandbLog(start={}), MLflowLog()]
    with pytest.raises(ValueError, match="MLflowLog: there is no active run"):
        fit(helper.regression(), log)
    assert wandb.run is None


def test_a_copy_is_of_the_same_class(wandb):
    class Own(WandbLog):
        factor = 1

    own = Own(Run(wandb))
    own.factor = 3
    copied = copy.deepcopy(own)
    assert type(copied) is Own and copied.factor == 3 and copied.run is own.run
    own = copy.deepcopy(Own(start={}))
    assert own.start == {} and own.run is None
