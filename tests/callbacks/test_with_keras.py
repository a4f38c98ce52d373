"""Together with Keras's own callbacks."""

import csv

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import (
    GradientHistory,
    GradientTensorBoard,
    GradWatch,
    ReduceLROnExplosion,
)
from tests import helper


@pytest.fixture
def data():
    return helper.regression_data(24)


def test_reduce_lr_on_plateau(data):
    def rates(ours):
        model = helper.regression(keras.optimizers.SGD(0.1))
        plateau = keras.callbacks.ReduceLROnPlateau(
            "loss", factor=0.1, patience=1, min_delta=10.0
        )
        history = helper.fit(model, *data, [*ours, plateau], epochs=4)
        return history["learning_rate"]

    expected = rates([])
    assert rates([GradWatch(verbose=0)]) == expected and expected[-1] < expected[0]


@pytest.mark.thorough
def test_plateau_and_explosion_cut_the_same_rate(data):
    x, y = data
    model = helper.regression(keras.optimizers.SGD(0.1))
    plateau = keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=10.0
    )
    cut = ReduceLROnExplosion(verbose=0)
    helper.fit(model, helper.with_nan(x, 1, 8), y, [cut, plateau], epochs=2)
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 0.005, 1e-5)


def test_plateau_on_grad_norm_reads_our_key(data):
    model = helper.regression(keras.optimizers.SGD(0.1))
    plateau = keras.callbacks.ReduceLROnPlateau(
        "grad_norm", factor=0.5, patience=1, mode="min", min_delta=100.0
    )
    helper.fit(model, *data, [GradientHistory(), plateau], epochs=3)
    assert float(model.optimizer.learning_rate) < 0.1


@pytest.mark.thorough
def test_early_stopping_restores_weights(data):
    x, y = data
    model = helper.regression()
    stopping = keras.callbacks.EarlyStopping(
        "grad_norm", mode="max", patience=1, restore_best_weights=True
    )
    helper.fit(model, x, y, [GradWatch(verbose=0), stopping], epochs=9)
    expected = helper.regression()
    helper.fit(expected, x, y, epochs=1)
    helper.assert_same(model.get_weights(), expected.get_weights())


def test_model_checkpoint(data, tmp_path):
    x, y = data
    path = tmp_path / "model-{epoch}.keras"
    checkpoint = keras.callbacks.ModelCheckpoint(path, monitor="grad_norm", mode="min")
    model = helper.regression("adam")
    bad = helper.with_nan(x, 2, 8)
    helper.fit(model, bad, y, [GradWatch(verbose=0), checkpoint], epochs=2)
    loaded = keras.models.load_model(tmp_path / "model-2.keras")
    assert helper.all_finite(loaded.get_weights())
    helper.assert_same(loaded.get_weights(), model.get_weights())
    assert not hasattr(loaded, "gradwatch")


def test_backup_and_restore(data, tmp_path):
    x, y = data

    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise RuntimeError("power cut")

    def train(extra):
        model, seen = helper.regression("adam"), GradientHistory()
        backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
        helper.fit(model, x, y, [GradWatch(verbose=0), seen, backup, *extra], epochs=4)
        return model, seen

    with pytest.raises(RuntimeError, match="power cut"):
        train([Crash()])
    model, seen = train([])
    assert len(seen.steps) == 6  # two epochs were restored
    expected = helper.regression("adam")
    helper.fit(expected, x, y, epochs=4)
    helper.assert_same(model.get_weights(), expected.get_weights())


@pytest.mark.thorough
def test_csv_logger(data, tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    history = helper.fit(
        helper.regression(), *data, [GradWatch(verbose=0), logger], epochs=2
    )
    with open(tmp_path / "log.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["grad_norm"]) for row in rows] == history["grad_norm"]
    assert [int(row["explosions"]) for row in rows] == [0, 0]


@pytest.mark.tensorflow  # what it needs is in TensorFlow
def test_tensorboard_in_the_same_directory(data, tmp_path):
    x, y = data
    both = [
        keras.callbacks.TensorBoard(tmp_path, update_freq=1, histogram_freq=1),
        GradientTensorBoard(tmp_path, update_freq=1),
    ]
    model = helper.regression()
    helper.fit(model, x, y, both, epochs=2, validation_data=(x, y))
    runs = {path.parent.name for path in tmp_path.rglob("events.out.*")}
    assert runs == {"train", "validation", "gradwatch"}
    expected = helper.regression()
    helper.fit(expected, x, y, epochs=2)
    helper.assert_same(model.get_weights(), expected.get_weights())
