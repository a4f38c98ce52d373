"""A run that is killed and taken up by a new process is the run it would have been."""

import json
import os
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing import plugin_event_accumulator

from keras_gradwatch import load, watch
from keras_gradwatch.callbacks import (
    GradientTensorBoard,
    GradWatch,
    KeepState,
    ReduceLROnExplosion,
    SkipOnExplosion,
    TerminateOnExplosion,
)
from keras_gradwatch.controller.backup import Backup, SavedState
from keras_gradwatch.records.events import Event
from keras_gradwatch.tensorboard import tags
from tests import helper, steps

# 30 steps an epoch, of which numbers 5 and 12 are bad; with `kill` the process dies by
# SIGKILL before that many batches of the third epoch.
SCRIPT = """
import os, signal, sys
import keras
from keras_gradwatch.callbacks import GradWatch, ReduceLROnExplosion
from tests import helper

directory, kill = sys.argv[1], int(sys.argv[2])
x, y = helper.regression_data(240)
x = helper.with_nan(helper.with_nan(x, 5, 8), 12, 8)
schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 30, 0.9)
model = helper.regression(keras.optimizers.Adam(schedule))


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if kill and (self.epoch, batch) == (2, kill):
            os.kill(os.getpid(), signal.SIGKILL)


watching = GradWatch(directory + "/logs", trust_bound=None, update_freq=10)
cut = ReduceLROnExplosion(cooldown=0, verbose=0)
backup = keras.callbacks.BackupAndRestore(
    directory + "/backup", save_freq=SAVE_FREQ, delete_checkpoint=False
)
helper.fit(model, x, y, [watching, cut, backup, Kill()], epochs=4)
model.save(directory + "/model.keras")
print(len(watching.events), watching.report())
"""


def run(directory, kill=0, save_freq="epoch"):
    """What the script printed; with `kill` it must have died by SIGKILL."""
    code = SCRIPT.replace("SAVE_FREQ", repr(save_freq))
    env = {**os.environ, "PYTHONPATH": str(helper.ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory), str(kill)],
        env=env,
        capture_output=True,
        text=True,
    )
    expected = -signal.SIGKILL if kill else 0
    assert done.returncode == expected, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def shown(directory):
    """`{tag: (steps, values)}` as TensorBoard shows it."""
    loaded = plugin_event_accumulator.EventAccumulator(
        str(directory / "logs" / "gradwatch"), size_guidance={"tensors": 0}
    ).Reload()
    series = {}
    for tag in loaded.Tags()["tensors"]:
        events = loaded.Tensors(tag)
        values = [e.tensor_proto.SerializeToString() for e in events]
        series[tag] = [e.step for e in events], values
    return series


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run that nobody killed."""
    directory = tmp_path_factory.mktemp("whole")
    run(directory)
    return directory


def seen(snapshot):
    """How many steps the running baseline of the norm is drawn from."""
    return snapshot["state"]["controller"]["detectors"][0]["ZScore_0"]["seen"]


def test_killed_and_resumed(whole, tmp_path):
    run(tmp_path, kill=25)
    before = shown(tmp_path)
    assert before[tags.GRAD_NORM][0][-1] >= 62  # readable, 50 after the last event
    assert load(tmp_path / "logs").steps[-1] >= 12  # the last incident
    printed = run(tmp_path)
    assert "resuming at step 60" in printed
    # The state of the detectors, and of all that goes on, is that of the whole run.
    actual, expected = (
        lines(d / "logs" / "gradwatch" / "state.jsonl")[-1] for d in (tmp_path, whole)
    )
    assert actual["step"] == 120 and seen(actual) > 100
    assert actual == expected
    record, expected = (load(d / "logs") for d in (tmp_path, whole))
    lost = expected.steps[~np.isin(expected.steps, record.steps)]
    assert record.steps[0] == 0 and record.steps[-1] == 119
    assert (lost > 12).all() and (lost < 60).all()  # of the last 0.2 s before the kill
    kept = np.isin(expected.steps, record.steps)
    np.testing.assert_array_equal(record.norms, expected.norms[kept])
    assert record.events == expected.events
    # Every event once, in the file and in the report.
    kept, wanted = (
        lines(d / "logs" / "gradwatch" / "events.jsonl") for d in (tmp_path, whole)
    )
    assert [e["step"] for e in kept] == [30 * e + b for e in range(4) for b in (5, 12)]
    assert kept == wanted
    assert "8 of 120 steps had non-finite values" in printed
    # One point a step, and the same ones.
    series, expected_series = shown(tmp_path), shown(whole)
    for tag in (*tags.SCALARS, tags.EVENTS):
        steps, values = series[tag]
        assert steps == sorted(set(steps)), tag
        wanted = dict(zip(*expected_series[tag], strict=True))
        for step, value in zip(steps, values, strict=True):
            # A window that the kill cut in two is shorter.
            if tag in (tags.GRAD_NORM, tags.LOSS, tags.LEARNING_RATE, tags.EVENTS):
                assert wanted.get(step, value) == value, (tag, step)
    # The schedule stayed cut; what is saved knows nothing of that.
    saved, expected_model = (
        keras.saving.load_model(d / "model.keras") for d in (tmp_path, whole)
    )
    helper.assert_same(saved.get_weights(), expected_model.get_weights())
    assert actual["state"]["rate_scale/0"] <= 0.5**8


@pytest.mark.thorough
def test_a_backup_in_the_middle_of_an_epoch(tmp_path):
    run(tmp_path, kill=20, save_freq=25)
    # The last backup was made after step 74, between two drains.
    printed = run(tmp_path, save_freq=25)
    state = lines(tmp_path / "logs" / "gradwatch" / "state.jsonl")
    steps = [s["step"] for s in state]
    assert steps == sorted(set(steps))
    assert "resuming at step 75 with" in printed
    kept = lines(tmp_path / "logs" / "gradwatch" / "events.jsonl")
    assert [e["step"] for e in kept][:6] == [5, 12, 35, 42, 65, 72]
    for steps, _ in shown(tmp_path).values():
        assert steps == sorted(set(steps))


def test_without_a_log_dir_and_in_one_process(tmp_path):
    x, y = helper.regression_data(240)
    bad = helper.with_nan(x, 3, 8)

    def optimizer():
        return keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.01, 100))

    def train(model, data, **kwargs):
        cut = ReduceLROnExplosion(verbose=0)
        keep = KeepState(tmp_path / "state")
        helper.fit(model, data, y, [cut, keep], **kwargs)
        return cut

    model = helper.regression(optimizer())
    train(model, bad)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    # The file knows nothing of the cut.
    assert "gradwatch" not in str(loaded.optimizer.get_config())
    cut = train(loaded, x)
    train(model, x)
    assert [e.step for e in cut.events] == [3]
    assert loaded.gradwatch.step == model.gradwatch.step == 60
    helper.assert_same(loaded.get_weights(), model.get_weights())
    assert loaded.gradwatch.store.read("rate_scale/0") == 0.5


@pytest.mark.thorough
@pytest.mark.parametrize(
    "other", helper.few(["alike"], ["new", "wider", "alike", "elsewhere"])
)
def test_another_run_has_a_directory_of_its_own(tmp_path, other, capsys):
    x, y = helper.regression_data(80)
    model = helper.regression("adam")
    helper.fit(model, helper.with_nan(x, 3, 8), y, [GradWatch(tmp_path, verbose=0)])
    model.save(tmp_path / "model.keras")
    before = (tmp_path / "gradwatch" / "state.jsonl").read_text()
    if other == "new":  # the same script, started again
        second = helper.regression("adam")
    elif other == "alike":  # as many updates of a model of the same shapes
        second = helper.regression("adam")
        helper.fit(second, x[8:], y[8:])
    elif other == "wider":  # trained, but not here
        second = helper.regression("adam", units=4)
        x2, y2 = helper.regression_data(80, units=4)
        helper.fit(second, x2, y2)
        y = y2
    else:
        second = keras.saving.load_model(tmp_path / "model.keras")
    asked = tmp_path / "b" if other == "elsewhere" else tmp_path
    directory = asked if other == "elsewhere" else tmp_path / "run-2"
    watching = GradWatch(asked, verbose=0)
    helper.fit(second, x, y, [watching])
    assert watching.history.steps.tolist() == list(range(10))
    assert watching.events == []
    folder = str(directory / "gradwatch")
    told = f"contains another run, so this one is written to {folder!r}"
    assert (told in capsys.readouterr().out) == (directory != asked)
    assert (tmp_path / "gradwatch" / "state.jsonl").read_text() == before
    for name in ("events.out.*", "report.txt", "run.json", "events.jsonl"):
        assert len(list((directory / "gradwatch").glob(name))) == 1
    state = lines(directory / "gradwatch" / "state.jsonl")
    assert [s["step"] for s in state] == [10]
    assert lines(directory / "gradwatch" / "events.jsonl") == []


def test_a_second_fit_in_the_same_process_goes_on(tmp_path):
    x, y = helper.regression_data(80)
    model = watch(helper.regression("adam"))
    skip = SkipOnExplosion(verbose=0)
    for bad in (3, 4):
        board = GradientTensorBoard(tmp_path)
        helper.fit(model, helper.with_nan(x, bad, 8), y, [board, skip])
    state = lines(tmp_path / "gradwatch" / "state.jsonl")
    assert [s["step"] for s in state] == [10, 20]
    events = lines(tmp_path / "gradwatch" / "events.jsonl")
    assert [e["step"] for e in events] == [3, 14]


def test_files_stay_small(tmp_path):
    backup = Backup(tmp_path)
    backup.begin(0)
    for step in range(1, 500):
        epoch_end = step % 5 == 0
        backup.keep(SavedState(step, f"after {step}", epoch_end, {"step": step}))
    kept = lines(tmp_path / "state.jsonl")
    assert [s["step"] for s in kept if s["epoch_end"]] == list(range(180, 500, 5))
    assert [s["step"] for s in kept if not s["epoch_end"]][-1] == 499
    assert len(kept) == 64 + 16
    # Whatever the model's age, its snapshot is found, as long as it is kept.
    for step, found in ((499, 499), (491, 491), (300, 300), (304, None), (100, None)):
        snapshot = Backup(tmp_path).find(f"after {step}")
        assert (snapshot and snapshot.step) == found
    assert Backup(tmp_path).find(None) is None
    event = Event(3, "norm", None, 1.0, 0.5, "observed", "step 3: ...")
    for _ in range(101):
        backup.add([event] * 100)
    assert len(lines(tmp_path / "events.jsonl")) == 10_000


@pytest.mark.thorough
def test_a_line_that_is_not_finished_is_none(tmp_path):
    x, y = helper.regression_data(80)
    model = helper.regression("adam")
    helper.fit(model, x, y, [GradWatch(tmp_path, verbose=0)])
    model.save(tmp_path / "model.keras")
    for name in ("state", "events"):
        with open(tmp_path / "gradwatch" / f"{name}.jsonl", "a") as file:
            file.write('{"step": 11, "upd')
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    watching = GradWatch(tmp_path, verbose=0)
    helper.fit(loaded, x, y, [watching])
    assert watching.history.steps.tolist() == list(range(10, 20))


@pytest.mark.parametrize("directory", [3, "", "s3://bucket/run", None])
def test_bad_directories(directory):
    with pytest.raises(ValueError, match="`directory` must be the path of a local"):
        KeepState(directory)


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    model = helper.regression()
    before = model.get_weights()
    with pytest.raises(ValueError, match="state_dir"):
        keep = GradWatch(state_dir=tmp_path / "file", verbose=0)
        helper.fit(model, *helper.regression_data(8), [keep])
    helper.assert_same(model.get_weights(), before)


@pytest.mark.thorough
def test_the_seen_baseline_is_taken_up_exactly(tmp_path):
    x, y = helper.regression_data(400)
    model = helper.regression("adam")
    helper.fit(model, x, y, [KeepState(tmp_path), SkipOnExplosion(verbose=0)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    spiking = np.concatenate([x[:8] * 100, x[8:]])
    skip = SkipOnExplosion(verbose=0)
    helper.fit(loaded, spiking, y, [KeepState(tmp_path), skip])
    assert {(e.step, e.kind) for e in skip.events} == {
        (50, "norm spike"),
        (50, "loss spike"),
    }


@pytest.mark.thorough
def test_under_a_strategy(strategy, tmp_path, capsys):
    def model():
        schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
        with strategy.scope():
            return helper.regression(keras.optimizers.SGD(schedule, momentum=0.9))

    def callbacks():
        board = GradientTensorBoard(tmp_path)
        backup = keras.callbacks.BackupAndRestore(
            tmp_path / "backup", delete_checkpoint=False
        )
        return [board, cut := ReduceLROnExplosion(), SkipOnExplosion(), backup], cut

    x, y = helper.regression_data(80)
    bad = helper.with_nan(x, 3, 8, slice(6, 7))
    first, _ = callbacks()
    helper.fit(model(), bad, y, first)
    resumed = model()
    second, cut = callbacks()
    helper.fit(resumed, bad, y, second, epochs=2)
    assert [e.step for e in cut.events] == [3, 13]
    assert capsys.readouterr().out.count("resuming at step 10 with") == 1
    expected = model()
    helper.fit(expected, bad, y, [ReduceLROnExplosion(), SkipOnExplosion()], epochs=2)
    helper.assert_same(
        helper.values(resumed.weights + resumed.optimizer.variables),
        helper.values(expected.weights + expected.optimizer.variables),
    )


@pytest.mark.thorough
def test_a_run_that_was_ended_may_be_taken_up(tmp_path):
    x, y = helper.regression_data(80)

    def callbacks():
        return [TerminateOnExplosion(verbose=0), KeepState(tmp_path / "state")]

    model = helper.regression("adam")
    helper.fit(model, helper.with_nan(x, 5, 8), y, callbacks(), epochs=2)
    assert model.gradwatch.halted
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    helper.fit(loaded, x, y, callbacks(), epochs=2)
    assert not loaded.gradwatch.halted
    assert int(loaded.optimizer.iterations) == 5 + 20


@pytest.mark.thorough
@pytest.mark.tensorflow
@pytest.mark.torch
def test_several_optimizers_and_directories(tmp_path):
    """The model's own `optimizer` never steps; one directory is lost on the way."""

    class Two(keras.Sequential):
        def compile(self):
            super().compile(loss="mse")
            layers = self.layers
            self.optimizers = [keras.optimizers.SGD(0.01), keras.optimizers.Adam(0.01)]
            for optimizer, layer in zip(self.optimizers, layers, strict=True):
                optimizer.build(layer.trainable_variables)

        def train_step(self, data):
            x, y = data
            for optimizer, layer in zip(self.optimizers, self.layers, strict=True):
                loss = steps.minimize(
                    optimizer,
                    layer.trainable_variables,
                    lambda: self.compute_loss(x, y, self(x)),
                )
            return {"loss": loss}

    def train(epochs, initial_epoch=0):
        keras.utils.set_random_seed(0)
        model = Two([keras.Input((5,)), keras.layers.Dense(3), keras.layers.Dense(3)])
        model.compile()
        if initial_epoch:
            model.set_weights(weights)
            for optimizer, old in zip(model.optimizers, slots, strict=True):
                for variable, value in zip(optimizer.variables, old, strict=True):
                    variable.assign(value)
        callbacks = [
            GradWatch(state_dir=tmp_path / "one", verbose=0),
            KeepState(tmp_path / "two"),
        ]
        options = {"epochs": epochs, "initial_epoch": initial_epoch}
        helper.fit(model, x, y, callbacks, **options)
        return model

    x, y = helper.regression_data(80)
    first = train(1)
    weights = first.get_weights()
    slots = [helper.values(optimizer.variables) for optimizer in first.optimizers]
    shutil.rmtree(tmp_path / "one")
    second = train(2, initial_epoch=1)
    assert second.gradwatch.step == 20
    whole = train(2)
    helper.assert_same(second.get_weights(), whole.get_weights())


@pytest.mark.thorough
def test_a_directory_that_vanishes_ends_no_training(tmp_path, capsys):
    x, y = helper.regression_data(80)
    model = helper.regression("adam")
    directory = tmp_path / "state"
    helper.fit(model, x, y, [KeepState(directory)])
    shutil.rmtree(directory)
    helper.fit(model, x, y, [KeepState(directory)])
    assert lines(directory / "state.jsonl")[-1]["step"] == 20
    shutil.rmtree(directory)
    directory.write_text("")
    helper.fit(model, x, y, [KeepState(directory)], epochs=2)
    assert capsys.readouterr().out.count("the state is no longer saved in") == 1
    assert model.gradwatch.step == 40


@pytest.mark.thorough
def test_a_cut_outlives_a_process_that_only_observes(tmp_path):
    def model():
        schedule = keras.optimizers.schedules.CosineDecay(0.01, 100)
        return helper.regression(keras.optimizers.SGD(schedule))

    x, y = helper.regression_data(80)
    bad = helper.with_nan(x, 3, 8)
    first = model()
    helper.fit(first, bad, y, [KeepState(tmp_path), ReduceLROnExplosion(verbose=0)])
    path = tmp_path / "model.keras"
    first.save(path)
    second = keras.saving.load_model(path)
    helper.fit(second, x, y, [KeepState(tmp_path)])
    second.save(path)
    third = keras.saving.load_model(path)
    helper.fit(third, x, y, [KeepState(tmp_path), ReduceLROnExplosion(verbose=0)])
    assert third.gradwatch.store.read("rate_scale/0") == 0.5
    assert third.gradwatch.step == 30
