"""`grad_norm` and `explosions` in the logs of each batch."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from tests import helper


class Batches(keras.callbacks.Callback):
    """Keeps the logs of each batch, and of each epoch."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append(dict(logs))


def fitted(*callbacks, model=None, epochs=2, **kwargs):
    x, y = helper.regression_data(40)
    model = model or helper.regression(**kwargs)
    x = helper.with_nan(x, 1, 8)
    helper.fit(model, x, y, callbacks, epochs=epochs)
    return model


def test_every_callback_sees_them_whatever_the_order():
    """A failure of the first assertion says that Keras no longer copies `items()`.

    Of the last one, that it no longer compares `keys()`: the logs of the last batch
    would then stand for those of the epoch (keras_hooks/batch_logs.py).
    """
    first, last = Batches(), Batches()
    watch = GradWatch(log_batches=True, verbose=0)
    fitted(first, watch, last)
    assert first.batches == last.batches
    assert [set(logs) for logs in first.batches] == [
        {"loss", "grad_norm", "explosions"}
    ] * 10
    found = np.float32([logs["grad_norm"] for logs in first.batches])
    norms = np.where(watch.history.applied, watch.history.global_norm, np.nan)
    np.testing.assert_array_equal(found, norms)
    assert [logs["explosions"] for logs in first.batches] == [0, 1, 0, 0, 0] * 2
    assert [set(logs) for logs in first.epochs] == [{"loss"}] * 2
    means = np.nanmean(norms.astype("float64").reshape(2, 5), axis=1)
    np.testing.assert_allclose([e["grad_norm"] for e in last.epochs], means, 1e-6)


def test_off_by_default_and_the_weights_are_the_same():
    batches = Batches()
    plain = fitted(batches, GradWatch(verbose=0))
    assert [set(logs) for logs in batches.batches] == [{"loss"}] * 10
    logged = fitted(GradWatch(verbose=0, log_batches=True))
    helper.assert_same(plain.get_weights(), logged.get_weights())


@pytest.mark.thorough
def test_long_after_the_first_steps():
    """Where nothing else would be read at every step."""
    x, y = helper.regression_data(140)
    batches, history = Batches(), GradientHistory(log_batches=True)
    helper.fit(helper.regression(), x, y, [batches, history], batch_size=1)
    found = np.float32([logs["grad_norm"] for logs in batches.batches])
    np.testing.assert_array_equal(found, history.global_norm)


@pytest.mark.tensorflow
@pytest.mark.jax  # PyTorch runs one step an execution
def test_several_steps_in_an_execution():
    x, y = helper.regression_data(40)
    batches, history = Batches(), GradientHistory(log_batches=True)
    model = helper.regression(steps_per_execution=2)
    helper.fit(model, helper.with_nan(x, 1, 8), y, [batches, history])
    norms = np.where(np.isfinite(history.loss), history.global_norm, np.nan)
    pairs = np.split(norms.astype("float64"), [2, 4])
    with np.errstate(invalid="ignore"):
        means = [
            pair[np.isfinite(pair)].mean() if np.isfinite(pair).any() else np.nan
            for pair in pairs
        ]
    found = [logs["grad_norm"] for logs in batches.batches]
    np.testing.assert_allclose(found, means, 1e-6)


def test_logs_of_the_step_itself_are_left_as_they_are():
    class Own(keras.Sequential):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

        def get_metrics_result(self):
            return {**super().get_metrics_result(), "explosions": -1.0}

    keras.utils.set_random_seed(0)
    model = Own([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    batches = Batches()
    fitted(batches, GradWatch(log_batches=True, verbose=0), model=model, epochs=1)
    assert {logs["explosions"] for logs in batches.batches} == {-1}
    assert all("grad_norm" in logs for logs in batches.batches)


@pytest.mark.thorough
def test_a_batch_by_itself_and_evaluate_have_none():
    watch = GradWatch(log_batches=True, verbose=0)
    model = fitted(watch)
    x, y = helper.regression_data(8)
    assert set(model.train_on_batch(x, y, return_dict=True)) == {"loss"}
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"loss"}


@pytest.mark.tensorflow  # Keras's callback asks TensorFlow for its summaries
def test_keras_own_tensorboard_logs_them(tmp_path):
    board = keras.callbacks.TensorBoard(tmp_path, update_freq="batch")
    fitted(board, GradWatch(log_batches=True, verbose=0))
    found = EventAccumulator(str(tmp_path / "train"), {"tensors": 0}).Reload()
    assert {"batch_grad_norm", "batch_explosions"} <= set(found.Tags()["tensors"])


def test_the_progress_bar_shows_them(capsys):
    x, y = helper.regression_data(16)
    history = GradientHistory(log_batches=True)
    helper.fit(helper.regression(), x, y, [history], verbose=1)
    assert "grad_norm: " in capsys.readouterr().out
