"""When baselines are those of another run, and begin again."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion
from tests import helper

STEPS = 40


def data(scale=1.0):
    x, y = helper.regression_data(8 * STEPS)
    return x, np.float32(scale) * y


def test_a_target_network_that_is_copied_over_is_no_spike():
    """The targets of a later `fit` are 1,000 times as large."""
    model = helper.regression(keras.optimizers.Adam(0.01))
    watch = GradWatch(verbose=0)
    for scale in (1.0, 1e3, 1.0):
        helper.fit(model, *data(scale), [watch])
    assert watch.events == [] and watch.history.applied.all()


@pytest.mark.thorough
def test_weights_that_were_assigned_are_no_spike():
    model = helper.regression(keras.optimizers.Adam(0.01))
    watch = GradWatch(verbose=0)
    helper.fit(model, *data(), [watch])
    model.set_weights([1e3 * (w + 1) for w in model.get_weights()])
    helper.fit(model, *data(), [watch])
    assert watch.events == [] and watch.history.applied.all()


@pytest.mark.parametrize("batch", [1, 5])
def test_a_spike_within_a_later_fit_is_left_out(batch):
    model = helper.regression(keras.optimizers.Adam(0.01))
    watch = SkipOnExplosion(verbose=0)
    helper.fit(model, *data(), [watch])
    x, y = data()
    y[8 * batch : 8 * batch + 8] *= 1e6
    helper.fit(model, x, y, [watch])
    assert {event.step for event in watch.events} == {STEPS + batch}
    assert {event.action for event in watch.events} == {"skipped"}


def test_a_base_that_is_unfrozen_is_no_explosion():
    """Frozen, trained, unfrozen, compiled again: norm and loss are others."""
    keras.utils.set_random_seed(0)
    base = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu")])
    model = keras.Sequential([keras.Input((64,)), base, keras.layers.Dense(10)])
    watch = GradWatch(verbose=0)
    x, y = helper.digits(640)
    for trainable, rate in ((False, 0.1), (True, 1e-3)):
        base.trainable = trainable
        helper.compiled(model, keras.optimizers.Adam(rate), loss_weights=1e3)
        helper.fit(model, x, y, [watch], epochs=2)
    assert watch.events == []


@pytest.mark.thorough
def test_a_cut_of_another_optimizer_is_forgotten():
    """What was cut from one optimizer's rate is not given back to the next one's."""
    x, y = helper.digits(480)
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(3e38))
    watch = GradWatch(verbose=0)
    helper.fit(model, x, y, [watch])
    assert watch.history.held.any()
    helper.compiled(model, keras.optimizers.SGD(0.1))
    begin = watch.history.steps[-1] + 1
    helper.fit(model, x, y, [watch], epochs=5)
    seen = watch.history
    assert not seen.held[seen.steps >= begin].any()
    assert (seen.learning_rate[seen.steps >= begin] == np.float32(0.1)).all()
