"""Datasets of which Keras does not know the length, on TensorFlow."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradWatch

pytestmark = [
    pytest.mark.tensorflow,
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]
EPOCHS, BATCHES = 8, 20


def train(watch, rate, known):
    """The loss after a few epochs."""
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(32 * BATCHES, 8)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1, keepdims=True)))
    data = data.batch(32) if known else data.batch(32).filter(lambda x, y: True)
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, "relu")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(rate), "mse")
    model.fit(data, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=[watch])
    return model.evaluate(data, verbose=0)


def test_no_step_is_recorded_without_a_batch():
    """After the last batch, the step begins once more, and ends where data is due."""
    history = GradientHistory()
    train(history, 0.01, known=False)
    assert len(history.global_norm) == EPOCHS * BATCHES
    assert np.isfinite(history.global_norm).all()


def test_updates_are_limited_and_released_as_with_a_known_length():
    known, unknown = GradWatch(verbose=0), GradWatch(verbose=0)
    losses = train(known, 2.0, True), train(unknown, 2.0, False)
    assert known.history.held.any() and known.events
    assert [(e.step, e.kind) for e in known.events] == [
        (e.step, e.kind) for e in unknown.events
    ]
    np.testing.assert_array_equal(known.history.held, unknown.history.held)
    assert losses[0] == pytest.approx(losses[1])
