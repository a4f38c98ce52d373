"""Data in a fixed order, whose last ones are the hardest: no run is rolled back."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch, RewindOnExplosion

WINDOW, BATCH = 8, 32


def growing_series():
    """Windows of a series that grows a thousandfold, and the values after them."""
    time, random = np.arange(4000), np.random.RandomState(0)
    series = np.exp(time / 4000 * 7) * (1 + 0.1 * np.sin(time / 20))
    series = (series * (1 + 0.01 * random.normal(size=4000))).astype("float32")
    windows = np.lib.stride_tricks.sliding_window_view(series, WINDOW)[:-1]
    return windows, series[WINDOW:, None]


def make_model(optimizer):
    keras.utils.set_random_seed(2)
    hidden = keras.layers.Dense(32, "relu")
    model = keras.Sequential([keras.Input((WINDOW,)), hidden, keras.layers.Dense(1)])
    model.compile(optimizer, "mse")
    return model


def dataset(x, y):
    """The same as a dataset of which the length is not known."""
    import tensorflow as tf

    rows = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    return rows.filter(lambda x, y: True)


def train(callbacks, known):
    """R² of the hardest rows, after five epochs in order."""
    x, y = growing_series()
    model = make_model(keras.optimizers.Adam(1e-3))
    data = {"x": x, "y": y, "batch_size": BATCH} if known else {"x": dataset(x, y)}
    model.fit(**data, epochs=5, shuffle=False, verbose=0, callbacks=callbacks)
    error = np.asarray(model.predict(x[-500:], verbose=0)) - y[-500:]
    return 1 - float(np.mean(error**2) / y[-500:].var())


@pytest.mark.parametrize(
    "known", [True, pytest.param(False, marks=pytest.mark.tensorflow)]
)
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")  # stock
def test_a_series_that_grows_is_learned_in_its_order(known):
    stock, watch = train([], known), GradWatch(verbose=0)
    assert train([watch], known) > stock - 0.005
    assert watch.events and {event.action for event in watch.events} == {"observed"}
    # Once the data have been shown to explain a loss, it is no event any more.
    assert len(watch.events) <= 2
    assert {finding.kind for finding in watch.report().symptoms} == {"shift"}


class Spoil(keras.callbacks.Callback):
    """Ruins the weights in the second epoch, after which they hardly change."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if self.epoch == 1 and batch in (35, 38):
            self.model.optimizer.learning_rate = 3.0 if batch == 35 else 1e-9


def test_a_loss_that_stays_high_in_the_next_epoch_is_rolled_back():
    """It rises at the end of an epoch, and it is the weights."""
    x = np.random.RandomState(1).normal(size=(3200, WINDOW)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    model = make_model(keras.optimizers.SGD(0.03))
    rewind = RewindOnExplosion(snapshot_freq=20, verbose=0)
    model.fit(x, y, BATCH, epochs=4, verbose=0, callbacks=[rewind, Spoil()])
    (event,) = rewind.events
    assert (event.kind, event.action) == ("divergence", "rewound")
    assert event.step >= 200  # the third epoch
    assert model.evaluate(x, y, verbose=0) < 1e-3 * event.value
