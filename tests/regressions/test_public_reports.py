"""Runs that people reported: a protected run ends no worse than stock Keras's."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradWatch, RewindOnExplosion, SkipOnExplosion
from keras_gradwatch.controller.responses import rewind
from keras_gradwatch.detectors import NormThreshold
from tests import helper


def train(model, x, y, callbacks=(), **kwargs):
    options = {"batch_size": 8, "verbose": 0, "callbacks": list(callbacks), **kwargs}
    return model.fit(x, y, **options).history


def masked_error(target, prediction):
    """The squared error of what is known; of nothing it is 0 / 0."""
    known = ops.cast(target > -999, "float32")
    return ops.sum(known * ops.square(prediction - target)) / ops.sum(known)


@pytest.mark.thorough
def test_batches_of_nothing_but_gaps_leave_the_rate_alone():
    """keras#7517: one batch in six is all masked."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1600, 4)).astype("float32")
    true = x.sum(axis=1, keepdims=True)
    gaps = random.random((1600, 1)) < 0.8
    y = np.where(gaps, -1000, true).astype("float32")

    def run(callback):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.02), masked_error)
        train(model, x, y, [callback], epochs=4, shuffle=False)
        return model

    watch = GradWatch(verbose=0)
    expected, actual = run(SkipOnExplosion(verbose=0)), run(watch)
    assert float(actual.optimizer.learning_rate) == np.float32(0.02)
    helper.assert_same(actual.get_weights(), expected.get_weights())
    empty = int(gaps.reshape(-1, 8).all(axis=1).sum())
    assert len(watch.events) == 4 * empty > 100  # `max_events`, and not stopped


def poisoned_after(batches):
    """Batches of which all targets are NaN, after some good ones."""
    x, y = helper.regression_data()
    for batch in range(9):
        part = slice(8 * (batch % 3), 8 * (batch % 3) + 8)
        yield x[part], y[part] * np.float32(1.0 if batch < batches else np.nan)


class Seen(keras.callbacks.Callback):
    """What a callback before ours is given."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))


def test_an_epoch_without_a_counted_batch_has_no_loss():
    """A search, or `EarlyStopping`, would take a loss of 0 for the best one."""
    model, first = helper.regression("adam"), Seen()
    model.compile("adam", "mse", metrics=["mae"])
    history = model.fit(
        poisoned_after(3),
        steps_per_epoch=3,
        shuffle=False,
        epochs=3,
        verbose=0,
        callbacks=[first, GradWatch(verbose=0)],
    ).history
    for found in (history, *[{k: [v] for k, v in log.items()} for log in first.logs]):
        assert {"loss", "mae"} <= set(found)
    losses = np.array([history["loss"], history["mae"]])
    np.testing.assert_array_equal(np.isfinite(losses), [[True, False, False]] * 2)
    assert np.isnan([log["loss"] for log in first.logs[1:]]).all()
    assert helper.all_finite(model.get_weights())


def log_of_a_negative(target, prediction):
    """NaN where the argument is negative; the gradient is finite everywhere."""
    unknown = ops.log(ops.stop_gradient(ops.minimum(prediction, -1.0)))
    return ops.mean(ops.square(prediction - target)) + unknown


def test_a_loss_that_is_nan_with_finite_gradients_is_no_reason_to_skip():
    """keras#590: stock Keras learns all the same."""
    x, y = helper.regression_data(units=1)

    def run(callbacks):
        model = helper.regression("adam", units=1)
        model.compile(keras.optimizers.Adam(0.01), log_of_a_negative)
        history = train(model, x, y, callbacks, epochs=2, shuffle=False)
        return model.get_weights(), history

    watch = GradWatch(verbose=0)
    (expected, _), (actual, history) = run([]), run([watch])
    helper.assert_same(actual, expected)
    assert np.isnan(history["loss"]).all()
    assert watch.events and {e.action for e in watch.events} == {"observed"}
    assert "every gradient is finite" in watch.events[0].message


@pytest.mark.parametrize(
    "optimizer",
    [lambda: keras.optimizers.SGD(0.05), lambda: keras.optimizers.RMSprop(1.0)],
    ids=["sgd", "rmsprop"],
)
def test_a_regression_with_raw_targets(optimizer):
    """keras#3040: an update larger than the kernel, and each one lowers the loss."""
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 5)).astype("float32")
    y = (x @ random.normal(size=(5, 1)) * 50 + 100).astype("float32")

    def run(callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        model.compile(optimizer(), "mse")
        return train(model, x, y, callbacks, epochs=5)["loss"][-1]

    watch = GradWatch(verbose=0)
    expected, actual = run([]), run([watch])
    assert not watch.events
    assert actual == pytest.approx(expected, rel=1e-5)


def test_a_cut_is_taken_back_when_all_is_quiet():
    """A stretch of bad data costs the rate only while it lasts."""
    x, y = helper.regression_data(8 * 700, units=1)
    y = y.copy()
    y[8 * 40 : 8 * 52] *= 1e3
    model = helper.regression(keras.optimizers.SGD(0.01), units=1)
    watch = GradWatch(trust_bound=None, max_rewinds=0, verbose=0)
    train(model, x, y, [watch], shuffle=False)
    rates = watch.history.learning_rate
    assert rates[:40].min() == rates[-1] == np.float32(0.01)
    assert 1e-5 <= rates[60:200].max() < 0.01
    assert any("learning rate 0.01 -> 0.005" in e.message for e in watch.events)
    last = watch.events[-1]
    assert last.action == "rate restored" and "-> 0.01" in last.message
    assert watch.summary.tripped <= 12


@pytest.mark.thorough
def test_a_target_that_follows_the_model():
    """keras-rl#376: Q learning without a target network, a `fit` for each batch.

    The targets grow by themselves; stock Keras settles once an update has gone too far.
    """
    state, following = (np.array([[a, a / 2]] * 160, "float32") for a in (1, 2))

    def run(callbacks):
        keras.utils.set_random_seed(0)
        random = np.random.default_rng(0)
        hidden = keras.layers.Dense(16, "relu")
        model = keras.Sequential([keras.Input((2,)), hidden, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.02), "mse")
        for _ in range(16):
            value = keras.ops.convert_to_numpy(model(following))
            reward = 1 + random.normal(size=value.shape) * 0.1
            target = (reward + 0.99 * value).astype("float32")
            loss = train(model, state, target, callbacks, batch_size=16)["loss"][-1]
        return loss

    stock, watched = run([]), run([watch := GradWatch(verbose=0)])
    assert watched < 10 * max(stock, 1.0)
    assert watch.summary.outcomes["held"] == 0


@pytest.mark.thorough
def test_the_cut_of_a_rewind_is_taken_back_once(digits, monkeypatch):
    """After `QUIET` steps without trouble; after a relapse it stays."""
    monkeypatch.setattr(rewind, "QUIET", 100)
    x, y = digits
    x, y = np.tile(x, (15, 1)), np.tile(y, 15)  # 180 steps
    spiked = x.copy()
    spiked[160:168] *= 1e6  # step 20
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(0.01))
    watch = RewindOnExplosion(5, detector=NormThreshold(1e4), verbose=0)
    rates = []
    for data in (spiked, spiked, x):
        train(model, data, y, [watch], shuffle=False)
        rates.append(float(model.optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.01, 0.0025, 0.0025], rtol=1e-6)
    actions = [event.action for event in watch.events]
    assert actions == ["rewound", "rate restored", "rewound"]


def test_targets_that_are_far_too_large_in_some_rows():
    """One row in 200, and one in the very first batch: each seventh batch has one."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 8)).astype("float32")
    y = (x[:, 0] + x[:, 1] * x[:, 2]).astype("float32")
    targets = y.copy()
    targets[random.random(1500) < 0.005] *= 1e4
    targets[3] = 1e4
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(64, "relu")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.03), "mse")
    watch = GradWatch(verbose=0)
    fit = {"batch_size": 32, "epochs": 15, "shuffle": False}
    train(model, x[:1200], targets[:1200], [watch], **fit)
    error = y[1200:] - model.predict(x[1200:], verbose=0)[:, 0]
    assert np.mean(error**2) < 0.3 * np.var(y[1200:])
    (back,) = [e for e in watch.events if e.action == "rewound"]
    assert "the snapshot of step 0 was restored" in back.message
