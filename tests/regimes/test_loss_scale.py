"""Which overflows are the loss scale's own affair, and which are an explosion."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradientHistory, GradWatch, SkipOnExplosion
from keras_gradwatch.detectors import ZScore
from tests import helper

COUNT = 60
LEAST = 2.0**-14


def root_loss(y, prediction):
    """Σ √(p²·y): where the targets are 0 the loss is 0, and its gradients are NaN."""
    return ops.sqrt(ops.square(prediction) * y)


def train(initial_scale, bad, callbacks, batch_norm=False, optimizer=None):
    """`(model, history)` after `COUNT` steps, those in `bad` with NaN gradients."""
    keras.utils.set_random_seed(0)
    norm = [keras.layers.BatchNormalization()] if batch_norm else []
    last = keras.layers.Dense(1, bias_initializer="ones")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3), *norm, last])
    inner = optimizer or keras.optimizers.SGD(1e-3)
    model.compile(
        keras.optimizers.LossScaleOptimizer(inner, initial_scale=initial_scale),
        root_loss,
        metrics=["mae"],
    )
    x, _ = helper.regression_data(COUNT)
    y = np.ones((COUNT, 1), "float32")
    y[bad] = 0
    history = helper.fit(model, x, y, callbacks, batch_size=1)
    return model, history


def scale_of(model):
    return float(model.optimizer.dynamic_scale)


def test_an_overflow_is_no_event_and_leaves_stock_keras():
    bad = [0, 1, 7]
    watching = GradWatch(detector=ZScore(), verbose=0)
    model, history = train(2.0**15, bad, [watching], batch_norm=True)
    expected, expected_history = train(2.0**15, bad, [], batch_norm=True)
    seen = watching.history
    assert watching.events == [] and history["explosions"] == [0]
    assert np.flatnonzero(seen.overflowed).tolist() == bad
    assert np.flatnonzero(~seen.applied).tolist() == bad
    helper.assert_same(seen.loss_scale[:3], np.array([2**15, 2**14, 2**13], "float32"))
    assert scale_of(model) == 2.0**12
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(helper.state(model), helper.state(expected))


def test_an_overflow_at_the_least_scale_is_an_event_and_it_goes_no_lower():
    bad = list(range(10, 20))
    watching = GradWatch(trust_bound=None, cooldown=100, verbose=0)
    model, _ = train(8 * LEAST, bad, [watching])
    seen = watching.history
    # It is halved three times; from the fourth overflow on it is not the scale.
    assert np.flatnonzero(seen.overflowed).tolist() == [10, 11, 12]
    assert [e.step for e in watching.events] == bad[3:]
    assert {(e.kind, e.action) for e in watching.events} == {("nonfinite", "skipped")}
    assert "at a loss scale of 6.10352e-05;" in watching.events[0].message
    assert scale_of(model) == LEAST
    assert seen.applied[20:].all() and not seen.applied[10:20].any()
    np.testing.assert_allclose(float(model.optimizer.learning_rate), 1e-3)
    assert helper.all_finite(model.get_weights())


def test_without_protection_the_scale_is_stock_keras_own():
    bad = list(range(40))
    seen = GradientHistory()
    model, _ = train(2.0, bad, [seen])
    expected, _ = train(2.0, bad, [])
    assert scale_of(model) == scale_of(expected) == 2.0**-39
    # From 2 it is 15 steps to the least scale.
    assert [e.step for e in seen.events] == bad[15:]
    # By the optimizer itself.
    assert {e.action for e in seen.events} == {"skipped"}
    assert not seen.applied[:40].any() and seen.applied[40:].all()


def test_every_twentieth_overflow_in_a_row_is_an_event():
    bad = [0, *range(2, 47)]
    skip, seen = SkipOnExplosion(verbose=0), GradientHistory()
    model, _ = train(2.0**60, bad, [skip, seen])
    assert [e.step for e in skip.events] == [21, 41]
    assert {e.action for e in skip.events} == {"skipped"}
    assert "at a loss scale of" in skip.events[0].message
    # The scale went on to look for its place.
    assert scale_of(model) == 2.0**14
    assert seen.applied[47:].all()


def test_a_run_that_only_overflows_is_ended():
    watching = GradWatch(max_events=5, verbose=0)
    model, _ = train(4 * LEAST, list(range(COUNT)), [watching])
    assert [e.step for e in watching.events] == [2, 3, 4, 5, 6]
    assert model.stop_training and "stopped" in watching.report()


@pytest.mark.parametrize("accumulation", [None, 2])
def test_a_loss_that_is_not_finite_is_an_event_at_any_scale(accumulation):
    def run(x, y, callbacks):
        inner = keras.optimizers.Adam(
            0.01, gradient_accumulation_steps=accumulation, name="adam"
        )
        optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        model = helper.regression(optimizer, metrics=["mae"])
        history = helper.fit(model, x, y, callbacks)
        return history, helper.state(model)

    x, y = helper.regression_data(56)
    skip = SkipOnExplosion(verbose=0)
    history, actual = run(helper.with_nan(x, 2, 8), y, [skip])
    expected = run(helper.without(x, 2, 8), helper.without(y, 2, 8), [])
    assert [e.step for e in skip.events] == [2]
    helper.assert_same((helper.without_our_keys(history), actual), expected)


@pytest.mark.parametrize("replica", [0, 1])
def test_an_overflow_on_one_replica_is_left_out_on_all(strategy, replica):
    keras.utils.set_random_seed(0)
    x, _ = helper.regression_data(24)
    y = np.ones((24, 1), "float32")
    y[8 + 4 * replica] = 0
    with strategy.scope():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
        inner = keras.optimizers.SGD(1e-2, momentum=0.9)
        scaling = keras.optimizers.LossScaleOptimizer(inner, initial_scale=1024.0)
        model.compile(scaling, root_loss)
    watching = GradWatch(trust_bound=None, verbose=0)
    helper.fit(model, x, y, [watching])
    assert watching.events == []
    assert watching.history.overflowed.tolist() == [False, True, False]
    assert int(ops.convert_to_numpy(model.optimizer.iterations)) == 2
    for variable in [*model.weights, *model.optimizer.variables]:
        first, second = (part.numpy() for part in variable.value.values)
        assert np.isfinite(first).all()
        helper.assert_same(first, second)


def test_batch_norm_that_the_forward_pass_spoils_is_no_overflow():
    """float16 overflows in the layer: BatchNorm is NaN while the loss is finite."""

    class Spoiled(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.norm = keras.layers.BatchNormalization()

        def call(self, x, training=False):
            spoiled = self.norm(x / ops.min(ops.abs(x)), training=training)
            return ops.where(ops.isfinite(spoiled), spoiled, x)

    def run(x, y, callbacks):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((5,)), Spoiled(), keras.layers.Dense(3)])
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01))
        model.compile(optimizer, "mse")
        helper.fit(model, x, y, callbacks)
        return helper.state(model)

    x, y = helper.regression_data(24)
    bad = x.copy()
    bad[8:16] = 0.0
    skip = SkipOnExplosion(verbose=0)
    actual = run(bad, y, [skip])
    assert helper.all_finite(actual["variables"])
    if helper.BACKEND == "jax":
        # What the forward pass did is known too late to be told, not to be put back.
        assert skip.events == []
        return
    assert [e.step for e in skip.events] == [1]
    expected = run(helper.without(x, 1, 8), helper.without(y, 1, 8), [])
    helper.assert_same(actual, expected)
