"""Several networks, each with an optimizer of its own."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion
from keras_gradwatch.detectors import NormThreshold
from keras_gradwatch.reports.diagnosis import symptoms
from keras_gradwatch.reports.diagnosis.model import describe
from tests import helper, steps

pytestmark = [pytest.mark.tensorflow, pytest.mark.torch]  # such steps are stateful


def network(name, last=None):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(8, "relu", name=f"{name}_hidden"),
            keras.layers.Dense(3, last, name=f"{name}_last"),
        ],
        name=name,
    )


class Pair(keras.Model):
    """Two generators that have nothing to do with each other."""

    def __init__(self, weight=1.0, last=None):
        super().__init__()
        keras.utils.set_random_seed(0)
        self.first, self.second = network("a", last), network("b", last)
        self.weight = weight
        self.built = True

    def compile(self, rate=0.01):
        super().compile()
        self.first_optimizer = keras.optimizers.SGD(rate)
        self.second_optimizer = keras.optimizers.SGD(rate)

    def train_step(self, data):
        x, y = data

        def minimize(optimizer, part, weight):
            return steps.minimize(
                optimizer,
                part.trainable_variables,
                lambda: weight * ops.mean(ops.square(part(x) - y)),
            )

        return {
            "first_loss": minimize(self.first_optimizer, self.first, self.weight),
            "second_loss": minimize(self.second_optimizer, self.second, 1.0),
        }


class Kill(keras.callbacks.Callback):
    """Pushes the hidden units of the second network below zero for good."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 5:
            bias = self.model.second.layers[0].bias
            bias.assign(ops.full(bias.shape, -100.0))


def train(callbacks, **options):
    x, y = helper.regression_data(8 * 40)
    model = Pair(**options)
    model.compile()
    helper.fit(model, x, y, [*callbacks, Kill()])
    return model


def test_a_dead_network_is_named_and_the_other_one_trains_on(capsys):
    watch = GradWatch()
    model, stock = train([watch]), train([])
    helper.assert_same(helper.values(model.weights), helper.values(stock.weights))
    (event,) = watch.events
    assert event.kind == "collapse" and event.action == "observed"
    name = "`second` (`second_optimizer`): no gradient has reached any kernel"
    assert name in event.message and name in capsys.readouterr().out
    assert len(watch.history.steps) == 40
    report = watch.report()
    assert "one of 2 networks has died" in report.verdict.lower()
    assert not report.exploded
    assert "LeakyReLU" in report.fixes[0] and len(report.fixes) == 1


def test_the_second_network_is_protected_in_the_first_step():
    """Its gradients are the only ones beyond the limit; the whole batch is skipped."""
    x, y = helper.regression_data(8)
    model = Pair(weight=1e-6)
    model.compile()
    before = model.get_weights()
    skip = SkipOnExplosion(detector=NormThreshold(1e-3), verbose=0)
    helper.fit(model, x, y, [skip])
    assert [(e.step, e.action) for e in skip.events] == [(0, "skipped")]
    helper.assert_same(model.get_weights(), before)


def test_a_ratio_is_taken_within_a_network():
    """The gradients of the first network are a millionth of the second one's."""
    watch = GradWatch(verbose=0)
    x, y = helper.regression_data(8 * 40)
    model = Pair(weight=1e-6)
    model.compile()
    helper.fit(model, x, y, [watch])
    assert watch.events == [] and symptoms(watch.summary) == []
    first, last = (watch.history[name] for name in watch.history.variables[::6])
    assert np.median(first / last) < 1e-3


def test_no_advice_against_what_the_output_is_for():
    assert describe(Pair(last="tanh"))["activations"] == {"relu": 2}
    inputs = keras.Input((5,))
    hidden = keras.layers.Dense(8, "tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, "tanh")(hidden))
    assert describe(model)["activations"] == {"tanh": 1}
