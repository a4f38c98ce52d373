"""The seam on JAX: a step that is a pure function."""

import keras
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch.callbacks import GradientHistory, GradWatch, SkipOnExplosion
from tests import helper

pytestmark = pytest.mark.jax

if keras.config.backend() == "jax":
    import jax


class Guide(keras.Model):
    """The custom step of Keras's guide for JAX, metric by metric."""

    def loss_and_updates(self, trainable, non_trainable, x, y):
        logits, non_trainable = self.stateless_call(
            trainable, non_trainable, x, training=True
        )
        return self.compute_loss(x, y, logits), (logits, non_trainable)

    def train_step(self, state, data):
        trainable, non_trainable, optimizer, metrics = state
        x, y = data
        differentiate = jax.value_and_grad(self.loss_and_updates, has_aux=True)
        (loss, (logits, non_trainable)), gradients = differentiate(
            trainable, non_trainable, x, y
        )
        trainable, optimizer = self.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        logs, new = {}, []
        for metric in self.metrics:
            own = metrics[len(new) : len(new) + len(metric.variables)]
            if metric.name == "loss":
                own = metric.stateless_update_state(own, loss)
            else:
                own = metric.stateless_update_state(own, y, logits)
            logs[metric.name] = metric.stateless_result(own)
            new += own
        return logs, (trainable, non_trainable, optimizer, new)


class Stock(keras.Model):
    """Stock Keras's step, in a class of its own."""


def run(base, callbacks, x, y, **kwargs):
    keras.utils.set_random_seed(5)
    model = helper.functional(base, dropout=0)
    helper.compiled(model, keras.optimizers.SGD(0.05, momentum=0.9), **kwargs)
    history = helper.fit(model, x, y, callbacks, 16, epochs=2)
    return model, history


@pytest.mark.parametrize("base", [Stock, Guide])
@pytest.mark.parametrize("jit", [True, False])
def test_idle_and_with_a_batch_left_out(base, jit, digits):
    x, y = digits
    model, expected = run(base, [], x, y, jit_compile=jit)
    seen = GradientHistory()
    actual, history = run(base, [GradWatch(verbose=0), seen], x, y, jit_compile=jit)
    helper.assert_same(helper.state(actual), helper.state(model), 1e-6)
    helper.assert_same(helper.without_our_keys(history), expected, 1e-6)
    assert np.isfinite(seen.loss).all() and seen.events == []
    results = model.evaluate(x, y, verbose=0)
    helper.assert_same(actual.evaluate(x, y, verbose=0), results, 1e-6)

    bad, shorter = helper.with_nan(x, 2, 16), helper.without(x, 2, 16)
    model, expected = run(base, [], shorter, helper.without(y, 2, 16), jit_compile=jit)
    skip = SkipOnExplosion(verbose=0)
    actual, history = run(base, [skip], bad, y, jit_compile=jit)
    helper.assert_same(helper.state(actual), helper.state(model), 1e-5)
    helper.assert_same(helper.without_our_keys(history), expected, 1e-5)
    assert [e.step for e in skip.events] == [2, 8]


def test_a_loss_that_is_compiled_inside_the_step_is_known(digits):
    class Compiled(Guide):
        def train_step(self, state, data):
            self_loss = jax.jit(super().loss_and_updates)
            object.__setattr__(self, "loss_and_updates", self_loss)
            try:
                return super().train_step(state, data)
            finally:
                object.__delattr__(self, "loss_and_updates")

    seen, expected = GradientHistory(), GradientHistory()
    run(Compiled, [GradWatch(verbose=0), seen], *digits)
    run(Guide, [GradWatch(verbose=0), expected], *digits)
    np.testing.assert_allclose(seen.loss, expected.loss, 1e-5)


def test_a_gradient_that_is_compiled_inside_the_step_is_not_told_apart(digits):
    """What is inside stays inside: the loss is taken from the logs."""

    class Inside(Guide):
        def train_step(self, state, data):
            own = jax.value_and_grad
            jax.value_and_grad = lambda *a, **k: jax.jit(own(*a, **k))
            try:
                return super().train_step(state, data)
            finally:
                jax.value_and_grad = own

    seen, expected = GradientHistory(), GradientHistory()
    run(Inside, [GradWatch(verbose=0), seen], *digits)
    run(Guide, [GradWatch(verbose=0), expected], *digits)
    np.testing.assert_allclose(seen.loss, expected.loss, 1e-5)


def test_a_step_that_keras_does_not_run_is_not_watched(digits):
    """Without `fit` nothing carries the monitor's variables."""
    x, y = digits
    model, _ = run(Stock, [seen := GradientHistory()], x, y)
    state = model._get_jax_state(True, True, True, True)
    logs, new = jax.jit(model.train_step)(state, (x[:16], y[:16]))
    assert len(new) == 4 and np.isfinite(float(logs["loss"]))
    assert len(seen.steps) == 12


def test_steps_per_execution_and_another_plan(digits):
    seen = GradientHistory()
    model, _ = run(Stock, [seen], *digits, steps_per_execution=4)
    assert seen.steps.tolist() == list(range(12))
    helper.fit(model, *digits, [GradWatch(verbose=0), seen], 16)
    assert seen.steps.tolist() == list(range(18))
    assert np.isfinite(seen.global_norm).all()


def test_a_cut_of_a_schedule_holds_in_the_compiled_step():
    x, y = helper.regression_data(24)
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 100, 0.5)
    cut = keras_gradwatch.callbacks.ReduceLROnExplosion(0.5, verbose=0)
    model = helper.regression(keras.optimizers.SGD(schedule))
    helper.fit(model, helper.with_nan(x, 0, 8)[:16], y[:16], [cut])
    twin = helper.regression(keras.optimizers.SGD(0.05))
    helper.fit(twin, x[8:16], y[8:16])
    helper.assert_same(model.get_weights(), twin.get_weights(), 1e-6)


def test_nothing_is_read_back_between_drains(digits):
    class Counting(keras.Model):
        syncs = 0

        def jax_state_sync(self):
            type(self).syncs += 1
            super().jax_state_sync()

    x, y = digits
    run(Counting, [], x, y)
    stock, Counting.syncs = Counting.syncs, 0
    seen = GradientHistory()
    watching = GradWatch(verbose=0)
    keras.utils.set_random_seed(5)
    model = helper.compiled(helper.functional(Counting, dropout=0))
    helper.fit(model, x, y, [watching, seen], 2, epochs=1)  # 48 steps: one drain
    few, Counting.syncs = Counting.syncs, 0
    helper.fit(model, x[:4], y[:4], [watching, seen], 2, epochs=1)
    # As many for 48 steps as for 2.
    assert few <= Counting.syncs + 1 and stock > 0


def test_buffers_are_donated_as_in_stock_keras(digits):
    x, y = digits

    class Keeping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            states.append(self._model._jax_state)

    def alive(callbacks):
        states.clear()
        run(Stock, [*callbacks, Keeping()], x, y)
        first = [v for values in states[0].values() for v in values]
        return sum(not v.is_deleted() for v in first)

    states = []
    assert alive([GradWatch(verbose=0)]) == alive([]) == 0


def test_nothing_stays_behind(tmp_path, digits):
    x, y = digits
    model, _ = run(Stock, [GradWatch(verbose=0)], x, y)
    expected, _ = run(Stock, [], x, y)
    assert [m.name for m in model.metrics] == [m.name for m in expected.metrics]
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path, custom_objects={"Stock": Stock})
    helper.assert_same(loaded.get_weights(), model.get_weights())
    assert len(loaded.variables) == len(model.variables)
    keras_gradwatch.unwatch(model)
    helper.fit(model, x, y, [], 16)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_in_the_first_step_loses_no_weights(error):
    x, y = helper.regression_data(8)
    model = helper.regression()
    before = model.get_weights()

    def failing(state, data):
        raise error("in the step")

    object.__setattr__(model, "train_step", failing)
    with pytest.raises(error, match="in the step"):
        helper.fit(model, x, y, [GradWatch(verbose=0)])
    helper.assert_same(model.get_weights(), before)


def test_functions_know_how_many_metrics_there_are(digits):
    """Under a distribution, Keras's functions are made for a number of variables."""
    x, y = digits
    distribution = keras.distribution.DataParallel(devices=jax.devices()[:1])
    with distribution.scope():
        model = helper.compiled(helper.functional(dropout=0))
        model.evaluate(x, y, verbose=0)
        skip = SkipOnExplosion(verbose=0)
        helper.fit(model, x, y, [skip], 32, validation_data=(x, y))
        keras_gradwatch.unwatch(model)
        assert np.isfinite(model.evaluate(x, y, verbose=0)).all()
