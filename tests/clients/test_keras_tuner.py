"""Searches with keras-tuner: a trial is a run of its own."""

import os

import keras
import pytest

from keras_gradwatch.callbacks import GradWatch
from tests import helper

pytestmark = [
    pytest.mark.tensorflow,  # it asks TensorFlow for its summaries
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # its own
]

os.environ.setdefault("KERAS_TUNER_NO_UPDATE", "1")
keras_tuner = pytest.importorskip(
    "keras_tuner", reason="keras-tuner is not installed", exc_type=ImportError
)


def build(hp):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    rate = hp.Float("rate", 0.001, 0.1)
    model.compile(keras.optimizers.Adam(rate), "mse")
    # A promoted trial takes over the optimizer's state, too.
    model.optimizer.build(model.trainable_variables)
    return model


def search(tuner, log_dir, count=80):
    x, y = helper.regression_data(count)
    callbacks = [
        GradWatch(log_dir, update_freq=1),
        keras.callbacks.TensorBoard(log_dir),
    ]
    options = {"batch_size": 8, "shuffle": False, "verbose": 0}
    data = {"validation_data": (x, y), "callbacks": callbacks}
    tuner.search(helper.with_nan(x, 3, 8), y, **options, **data)


def runs(log_dir):
    """The directories with event files of ours, beside those of Keras's callback."""
    folders = sorted(path.parent for path in log_dir.rglob("gradwatch/events.out.*"))
    assert len(set(folders)) == len(folders)  # one file in each
    for folder in folders:
        assert (folder.parent / "train").is_dir()
        assert len((folder / "events.jsonl").read_text().splitlines()) > 0
        assert "had non-finite values" in (folder / "report.txt").read_text()
    return [str(folder.relative_to(log_dir)) for folder in folders]


def test_each_trial_logs_to_its_own_directory(tmp_path, capsys):
    tuner = keras_tuner.RandomSearch(
        build,
        "val_loss",
        max_trials=2,
        executions_per_trial=2,
        seed=0,
        directory=tmp_path / "tuner",
        project_name="search",
    )
    search(tuner, tmp_path / "logs", 40)
    assert runs(tmp_path / "logs") == [
        os.path.join(f"{trial}", f"execution{execution}", "gradwatch")
        for trial in range(2)
        for execution in range(2)
    ]
    assert "contains another run" not in capsys.readouterr().out


def test_a_promoted_trial_takes_nothing_over_from_another(tmp_path, capsys):
    keras.utils.set_random_seed(0)
    tuner = keras_tuner.Hyperband(
        build,
        "val_loss",
        max_epochs=2,
        factor=2,
        seed=0,
        directory=tmp_path / "tuner",
        project_name="search",
    )
    search(tuner, tmp_path / "logs", 40)
    trials = tuner.oracle.trials
    promoted = [t for t in trials.values() if "tuner/trial_id" in t.hyperparameters]
    assert promoted
    assert len(runs(tmp_path / "logs")) == len(trials)
    assert "resuming at step" not in capsys.readouterr().out
