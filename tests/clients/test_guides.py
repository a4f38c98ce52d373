"""The models of Keras's guides, watched: they train as in stock Keras, and are seen."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradWatch, SkipOnExplosion
from tests import helper
from tests.clients import guides

SIZE = 8


def make(base, optimizer=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = base(inputs, keras.layers.Dense(3)(inputs))
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    if base is guides.Second:
        model.compile(optimizer)
    else:
        model.compile(optimizer, "mse", metrics=["mae"])
    return model


@pytest.mark.thorough
@pytest.mark.parametrize("base", [guides.First, guides.Second])
def test_it_trains_as_in_stock_keras_and_a_bad_batch_is_left_out(base):
    x, y = helper.regression_data(32)
    model = make(base)
    expected = helper.fit(model, x, y, epochs=2)
    watched, watch = make(base), GradWatch()
    history = helper.fit(watched, x, y, [watch], epochs=2)
    helper.assert_same(helper.state(watched), helper.state(model))
    helper.assert_same(helper.without_our_keys(history), expected)

    model, watched = make(base), make(base)
    helper.fit(model, helper.without(x, 2, SIZE), helper.without(y, 2, SIZE))
    skip = SkipOnExplosion(verbose=0)
    helper.fit(watched, helper.with_nan(x, 2, SIZE), y, [skip])
    helper.assert_same(helper.state(watched), helper.state(model))
    assert [event.step for event in skip.events] == [2]


@pytest.mark.parametrize("base", [guides.First, guides.Second])
def test_the_loss_is_that_of_each_step(base, capsys):
    x, y = helper.regression_data(32)
    model = make(base, keras.optimizers.SGD(0.0))
    watch = GradWatch()
    helper.fit(model, x, y, [watch])
    errors = (model.predict(x, verbose=0) - y) ** 2
    expected = errors.reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(watch.history.loss, expected, 1e-5)
    assert capsys.readouterr().out == ""


def gan(activation="tanh", dead=False):
    keras.utils.set_random_seed(0)
    zeros = "zeros" if dead else "glorot_uniform"
    generator = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, "relu", bias_initializer=zeros, name="g_first"),
            keras.layers.Dense(5, activation, name="g_last"),
        ],
        name="generator",
    )
    discriminator = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, "relu", name="d_first"),
            keras.layers.Dense(1, name="d_last"),
        ],
        name="discriminator",
    )
    model = guides.Gan(discriminator, generator, 4)
    model.compile(
        keras.optimizers.Adam(0.0003),
        keras.optimizers.Adam(0.0003),
        keras.losses.BinaryCrossentropy(from_logits=True),
    )
    return model


@pytest.mark.tensorflow
@pytest.mark.torch
def test_both_losses_of_a_gan_are_seen(capsys):
    x, _ = helper.regression_data(32)
    model, watch, seen = gan(), GradWatch(), Losses()
    history = model.fit(
        x, batch_size=8, shuffle=False, verbose=0, callbacks=[watch, seen]
    ).history
    losses = np.concatenate(seen.losses)[:, :2]
    np.testing.assert_allclose(
        losses.mean(axis=0), [history["d_loss"][0], history["g_loss"][0]], 1e-5
    )
    # One line: their losses are no measure of each other's updates.
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 1 and "each optimizer has its own loss" in printed[0]
    assert "LossSpike" in printed[0] and "Divergence" in printed[0]


class Losses(GradientHistory):
    """The losses of each application."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def on_rows(self, rows, events):
        super().on_rows(rows, events)
        self.losses.append(rows.applications[:, :, 2])
