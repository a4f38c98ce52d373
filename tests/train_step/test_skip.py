"""Promises 3 and 4: a skipped batch leaves the run as if it had not been there."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch import watch
from keras_gradwatch.callbacks import (
    ExplosionError,
    GradientClipping,
    GradientHistory,
    GradWatch,
    ReduceLROnExplosion,
    SkipOnExplosion,
    TerminateOnExplosion,
)
from keras_gradwatch.detectors import NormThreshold, UpdateRatio
from tests import helper, steps

SIZE = 16
BAD = 2  # of 6 batches


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.8)


OPTIMIZERS = {
    "sgd, momentum, weight decay": lambda: keras.optimizers.SGD(
        0.05, momentum=0.9, weight_decay=0.01
    ),
    "adam, schedule": lambda: keras.optimizers.Adam(schedule()),
    "adamw, EMA": lambda: keras.optimizers.AdamW(
        0.01, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3
    ),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(schedule()), initial_scale=1024
    ),
}


def run(model, x, y, callbacks, epochs=2):
    history = helper.fit(model, x, y, callbacks, SIZE, epochs=epochs)
    return history, helper.state(model, seeds=False)


@pytest.mark.parametrize(
    "optimizer", helper.few(["adamw, EMA", "loss scale"], OPTIMIZERS)
)
def test_as_if_the_batch_had_not_been_in_the_data(optimizer, digits):
    x, y = digits

    def train(x, y, callbacks):
        keras.utils.set_random_seed(3)
        model = helper.functional(dropout=0)
        return run(helper.compiled(model, OPTIMIZERS[optimizer]()), x, y, callbacks)

    expected_history, expected = train(
        helper.without(x, BAD, SIZE), helper.without(y, BAD, SIZE), []
    )
    seen = GradientHistory()
    history, actual = train(
        helper.with_nan(x, BAD, SIZE), y, [SkipOnExplosion(verbose=0), seen]
    )
    assert history["explosions"] == [1, 1]
    assert np.flatnonzero(~seen.applied).tolist() == [BAD, 6 + BAD]
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(actual, expected)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "make", helper.few([helper.subclassed], [helper.subclassed, helper.functional])
)
def test_unbuilt_model_whose_very_first_batch_is_bad(make, digits):
    x, y = digits

    def train(x, y, callbacks):
        keras.utils.set_random_seed(3)
        model = helper.compiled(make(dropout=0), "adam")
        return run(model, x, y, callbacks, epochs=1)

    expected_history, expected = train(x[SIZE:], y[SIZE:], [])
    history, actual = train(
        helper.with_nan(x, 0, SIZE), y, [SkipOnExplosion(verbose=0)]
    )
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(actual, expected)


def test_a_finite_explosion_is_skipped_in_the_same_way(digits):
    x, y = digits
    bad = x.copy()
    bad[BAD * SIZE : (BAD + 1) * SIZE] *= 1e6

    def train(x, y, callbacks):
        keras.utils.set_random_seed(3)
        inputs = keras.Input((64,))
        outputs = keras.layers.Dense(10)(inputs)
        model = helper.compiled(keras.Model(inputs, outputs), "adam")
        return run(model, x, y, callbacks)

    expected_history, expected = train(
        helper.without(x, BAD, SIZE), helper.without(y, BAD, SIZE), []
    )
    skip = SkipOnExplosion(NormThreshold(1e3), verbose=0)
    history, actual = train(bad, y, [skip])
    assert [(e.step, e.kind, e.action) for e in skip.events] == [
        (BAD, "norm", "skipped"),
        (6 + BAD, "norm", "skipped"),
    ]
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(actual, expected)


@pytest.mark.thorough
def test_a_bad_target_is_as_bad_as_a_bad_input():
    x, y = helper.regression_data(24)
    model = helper.regression("adam", metrics=["mae"])
    history = helper.fit(
        model, x, helper.with_nan(y, 1, 8), [SkipOnExplosion(verbose=0)]
    )
    expected = helper.regression("adam", metrics=["mae"])
    expected_history = helper.fit(
        expected, helper.without(x, 1, 8), helper.without(y, 1, 8)
    )
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(helper.state(model), helper.state(expected))


def rate_of(model):
    leaf = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return float(leaf._get_current_learning_rate())


RATES = {
    "float": lambda: keras.optimizers.Adam(0.1),
    "schedule": lambda: keras.optimizers.Adam(schedule()),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.1), initial_scale=64
    ),
    "loss scale, schedule": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(schedule()), initial_scale=64
    ),
}


@pytest.mark.parametrize("rate", helper.few(["loss scale, schedule"], RATES))
def test_a_nan_batch_in_the_middle_of_an_epoch(rate, digits, capsys):
    x, y = digits
    keras.utils.set_random_seed(3)
    model = helper.compiled(helper.functional(), RATES[rate]())
    watching, cut = GradWatch(trust_bound=None), ReduceLROnExplosion()
    history = helper.fit(model, helper.with_nan(x, 3, SIZE), y, [watching, cut], SIZE)
    seen = watching.history
    assert seen.applied.tolist() == [True, True, True, False, True, True]
    (event,) = watching.events
    assert (event.step, event.kind, event.action) == (3, "nonfinite", "skipped")
    assert history["explosions"] == [1] and np.isfinite(history["loss"]).all()
    assert all(map(helper.all_finite, helper.state(model).values()))
    # Each step's rate, as the optimizer would have it, and half of it after the cut.
    done = 0
    for step, applied in enumerate(seen.applied):
        uncut = 0.05 * 0.8 ** (done / 2) if "schedule" in rate else 0.1
        uncut *= 0.5 if step > 3 else 1
        np.testing.assert_allclose(seen.learning_rate[step], uncut, 1e-5)
        done += applied
    printed = capsys.readouterr().out
    assert printed.count("[gradwatch] epoch 1, step 3: ") == 1
    assert event.message in printed and "learning rate" in event.message


@pytest.mark.thorough
def test_the_cut_rate_is_what_the_update_uses():
    x, y = helper.regression_data(24)
    model = helper.regression(keras.optimizers.SGD(schedule()))
    cut = ReduceLROnExplosion(factor=0.25, verbose=0)
    helper.fit(model, helper.with_nan(x, 0, 8), y, [cut])
    decayed = keras.optimizers.schedules.ExponentialDecay(0.0125, 2, 0.8)
    expected = helper.regression(keras.optimizers.SGD(decayed))
    helper.fit(expected, x[8:], y[8:])
    helper.assert_same(model.get_weights(), expected.get_weights(), 1e-6)


def many_nans(*batches):
    x, y = helper.regression_data(64)
    for batch in batches:
        x = helper.with_nan(x, batch, 8)
    return x, y


def rates_of(callback, *batches, rate=0.1):
    model = helper.regression(keras.optimizers.SGD(rate))
    history = GradientHistory()
    helper.fit(model, *many_nans(*batches), [callback, history])
    return history.learning_rate


@pytest.mark.thorough
def test_no_cut_within_the_cooldown():
    cut = ReduceLROnExplosion(factor=0.5, cooldown=3, verbose=0)
    actual = rates_of(cut, 1, 2, 4, 5)
    np.testing.assert_allclose(actual, [0.1] * 2 + [0.05] * 4 + [0.025] * 2, 1e-6)
    assert len(cut.events) == 4


def test_no_cut_below_the_minimum():
    cut = ReduceLROnExplosion(factor=0.5, cooldown=0, min_lr=0.04, verbose=0)
    actual = rates_of(cut, 1, 3, 5)
    np.testing.assert_allclose(actual, [0.1] * 2 + [0.05] * 2 + [0.04] * 4, 1e-6)


@pytest.mark.thorough
def test_a_rate_below_the_minimum_is_left_alone():
    cut = ReduceLROnExplosion(cooldown=0, min_lr=0.5, verbose=0)
    np.testing.assert_allclose(rates_of(cut, 1, 3), [0.1] * 8, 1e-6)


def test_multi_optimizer_is_cut_in_each_part():
    x, y = many_nans(1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4), keras.layers.Dense(3)]
    )
    parts = keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.02)
    model.compile("sgd", "mse")
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    first = f"{model.layers[0].path}/.*"
    multi = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(parts[1], {first: parts[0]})
    )
    model.compile(multi, "mse")
    helper.fit(model, x, y, [ReduceLROnExplosion(verbose=0)])
    rates = [float(o.learning_rate) for o in parts]
    np.testing.assert_allclose(rates, [0.05, 0.01], 1e-6)


class Gan(keras.Model):
    """Two networks with an optimizer each; `poison` makes the second's loss NaN."""

    def __init__(self, rate=0.1):
        super().__init__()
        self.generator = keras.layers.Dense(4, name="generator")
        self.critic = keras.layers.Dense(1, name="critic")
        self.critic_optimizer = keras.optimizers.Adam(rate)
        self.generator_optimizer = keras.optimizers.SGD(rate, momentum=0.9)
        self.critic_loss = keras.metrics.Mean(name="critic_loss")

    def build(self, shape):
        self.generator.build((None, 2))
        self.critic.build((None, 4))
        self.built = True

    def train_step(self, data):
        noise, real, poison = data[0]

        def of_critic():
            fake = self.critic(self.generator(noise))
            return ops.mean(fake) - ops.mean(self.critic(real))

        def of_generator():
            fake = self.critic(self.generator(noise))
            return ops.mean(ops.square(fake - 1)) * ops.mean(poison)

        weights = self.critic.trainable_variables
        loss = steps.minimize(self.critic_optimizer, weights, of_critic)
        self.critic_loss.update_state(loss)
        weights = self.generator.trainable_variables
        steps.minimize(self.generator_optimizer, weights, of_generator)
        return {"critic_loss": self.critic_loss.result()}


@pytest.mark.thorough
@pytest.mark.tensorflow
@pytest.mark.torch
def test_gan_the_first_update_is_taken_back_where_the_second_is_bad():
    random = np.random.default_rng(0)
    noise = random.normal(size=(24, 2)).astype("float32")
    real = random.normal(size=(24, 4)).astype("float32")
    poison = np.ones((24, 1), "float32")

    def train(arrays, callbacks):
        keras.utils.set_random_seed(3)
        model = Gan()
        model.build(None)
        model.compile(optimizer=None)
        history = helper.fit(model, arrays, None, callbacks)
        optimizers = model.critic_optimizer, model.generator_optimizer
        return history, helper.state(model, *optimizers)

    expected_history, expected = train(
        tuple(helper.without(a, 1, 8) for a in (noise, real, poison)), []
    )
    seen, skip = GradientHistory(), SkipOnExplosion(verbose=0)
    arrays = noise, real, helper.with_nan(poison, 1, 8)
    history, actual = train(arrays, [skip, seen])
    assert seen.applied.tolist() == [True, False, True]
    (event,) = skip.events
    assert event.step == 1 and "generator" in event.variable
    assert len(seen.variables) == 4
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(actual, expected)


def test_an_update_over_the_trust_bound_is_put_back():
    x, y = helper.regression_data(24)
    model = helper.regression(keras.optimizers.Adam(10.0))
    before = model.get_weights()
    seen, skip = GradientHistory(), SkipOnExplosion(UpdateRatio(0.5), verbose=0)
    helper.fit(model, x, y, [skip, seen], 24)
    helper.assert_same(model.get_weights(), before)
    assert seen.applied.tolist() == [False]
    assert [e.action for e in skip.events] == ["reverted"]
    # The cheaper outcome: slots and iterations went on.
    assert int(model.optimizer.iterations) == 1
    assert any(np.any(v) for v in helper.values(model.optimizer.variables[2:]))
    ratio = seen.statistics["update_ratio"][0, 0]
    np.testing.assert_allclose(skip.events[0].value, ratio, 1e-5)
    kernel = np.linalg.norm(before[0])
    np.testing.assert_allclose(ratio, 10 * np.sqrt(before[0].size) / kernel, 1e-3)


def test_gradwatch_survives_a_rate_that_is_far_too_high():
    x, y = helper.regression_data(64)
    model = helper.regression(keras.optimizers.SGD(300.0))
    helper.fit(model, x, y, [watching := GradWatch(verbose=0)], epochs=4)
    assert helper.all_finite(model.get_weights())
    first = watching.events[0]
    assert (first.step, first.kind, first.action) == (1, "update", "reverted")
    # One loss has shown what the first update did; it is put back.
    losses = watching.history.loss
    applied = watching.history.applied
    assert losses[1] > 100 and not applied[1] and losses[applied].max() < 10
    assert "rate" in watching.report()


@pytest.mark.thorough
def test_gradwatch_cuts_no_rate_for_what_is_not_finite():
    """A bad batch says nothing about the rate, nor do three in a row."""
    for batches in ((0, 7), (0, 1, 2)):
        x, y = many_nans(*batches)
        model = helper.regression(keras.optimizers.SGD(0.1))
        watching = GradWatch(verbose=0)
        helper.fit(model, x, y, [watching])
        assert [e.step for e in watching.events] == list(batches)
        rate = float(model.optimizer.learning_rate)
        np.testing.assert_allclose(rate, 0.1, 1e-6)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", helper.few(["raise"], ["stop", "raise"]))
def test_terminate_leaves_the_weights_from_before(mode, capsys):
    x, y = helper.regression_data(200)
    bad = helper.with_nan(x, 5, 8)
    model = helper.regression("adam")
    stop, epochs = TerminateOnExplosion(mode=mode), []

    def train():
        epochs.append(helper.fit(model, bad, y, [stop], epochs=3))

    if mode == "raise":
        with pytest.raises(ExplosionError, match="step 5") as caught:
            train()
        assert [e.step for e in caught.value.events] == [5]
    else:
        train()
        assert len(epochs[0]["loss"]) == 1 and model.stop_training
        assert "stopped" in capsys.readouterr().out
    assert [e.step for e in stop.events] == [5]
    expected = helper.regression("adam")
    helper.fit(expected, x[:40], y[:40])
    helper.assert_same(helper.values(model.weights), helper.values(expected.weights))
    helper.assert_same(
        helper.values(model.optimizer.variables),
        helper.values(expected.optimizer.variables),
    )
    # The next fit trains again.
    before = model.get_weights()
    helper.fit(model, x, y, [stop])
    assert not np.array_equal(before[0], model.get_weights()[0])


@pytest.mark.thorough
def test_terminate_after_several_steps():
    x, y = many_nans(1, 3, 5)
    model = helper.regression()
    stop = TerminateOnExplosion(limit=2, verbose=0)
    seen = GradientHistory()
    helper.fit(model, x, y, [stop, seen])
    assert [e.step for e in stop.events] == [1, 3]
    assert np.flatnonzero(seen.applied).tolist() == [0, 2]


def test_gradwatch_ends_a_run_that_only_explodes():
    x, y = helper.regression_data(200)
    model = helper.regression()
    watching = GradWatch(max_events=7, verbose=0)
    helper.fit(model, np.full_like(x, np.nan), y, [watching], epochs=50)
    assert len(watching.events) == 7 and watching.history.steps[-1] < 100
    assert "stopped" in watching.report()


def test_observing_lets_nan_through_and_sees_it():
    x, y = helper.regression_data(24)
    seen = GradientHistory()
    model = helper.regression("adam", metrics=["mae"])
    history = helper.fit(model, helper.with_nan(x, 1, 8), y, [seen])
    expected = helper.regression("adam", metrics=["mae"])
    expected_history = helper.fit(expected, helper.with_nan(x, 1, 8), y)
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(helper.state(model), helper.state(expected))
    assert np.isnan(model.get_weights()[0]).all()
    assert seen.applied.all()
    assert [(e.step, e.action) for e in seen.events] == [
        (1, "observed"),
        (2, "observed"),
    ]
    assert seen.statistics["nonfinite_count"].tolist() == [[0, 0], [15, 3], [15, 3]]


def test_a_standing_policy_protects_train_on_batch():
    x, y = helper.regression_data(16)
    model = helper.regression("adam")
    watch(model, policy=GradientClipping(clipnorm=1e6).policy)
    model.train_on_batch(x[:8], y[:8])
    before = helper.values(model.optimizer.variables + model.weights)
    model.train_on_batch(np.full_like(x[:8], np.nan), y[:8])
    helper.assert_same(helper.values(model.optimizer.variables + model.weights), before)
    model.train_on_batch(x[8:], y[8:])
    rows = model.gradwatch.drain()
    assert rows.steps.tolist() == [0, 1, 2]
    assert [e.action for e in rows.events()] == ["skipped"]


def accumulating(**kwargs):
    return keras.optimizers.Adam(0.1, gradient_accumulation_steps=2, **kwargs)


@pytest.mark.parametrize("bad", helper.few([1], [0, 1, 2, 5]))
def test_a_bad_micro_batch_is_dropped_and_the_window_goes_on(bad):
    x, y = helper.regression_data(56)
    model = helper.regression(accumulating(), metrics=["mae"])
    history = helper.fit(
        model, helper.with_nan(x, bad, 8), y, [SkipOnExplosion(verbose=0)]
    )
    expected = helper.regression(accumulating(), metrics=["mae"])
    expected_history = helper.fit(
        expected, helper.without(x, bad, 8), helper.without(y, bad, 8)
    )
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(helper.state(model), helper.state(expected))


def test_clipping_the_average_of_a_window_is_native_clipping():
    x, y = helper.regression_data(64)
    model, seen = helper.regression(accumulating()), GradientHistory()
    helper.fit(model, x, y, [GradientClipping(global_clipnorm=0.1), seen])
    expected = helper.regression(accumulating(global_clipnorm=0.1))
    helper.fit(expected, x, y)
    helper.assert_same(model.get_weights(), expected.get_weights(), 1e-6)
    # One norm for each window, at its last micro-batch.
    measured = ~np.isnan(seen.global_norm)
    assert measured.tolist() == [False, True] * 4
    assert (seen.global_norm[measured] > 0.1).all()
    np.testing.assert_allclose(seen.clipped_norm[measured], 0.1, 1e-4)


def mirrored(strategy, optimizer, **kwargs):
    keras.utils.set_random_seed(0)
    with strategy.scope():
        return helper.regression(optimizer(), **kwargs)


def assert_replicas_agree(model):
    for variable in [*model.weights, *model.optimizer.variables]:
        first, second = (part.numpy() for part in variable.value.values)
        helper.assert_same(first, second)


@pytest.mark.parametrize("replica", [0, 1])
def test_nan_on_one_replica_is_skipped_on_both(strategy, replica):
    x, y = helper.regression_data(24)
    part = slice(4 * replica, 4 * replica + 2)
    model = mirrored(strategy, keras.optimizers.Adam, metrics=["mae"])
    seen, skip = GradientHistory(), SkipOnExplosion(verbose=0)
    history = helper.fit(model, helper.with_nan(x, 1, 8, part), y, [skip, seen])
    expected = mirrored(strategy, keras.optimizers.Adam, metrics=["mae"])
    expected_history = helper.fit(
        expected, helper.without(x, 1, 8), helper.without(y, 1, 8)
    )
    assert seen.applied.tolist() == [True, False, True]
    assert [e.step for e in skip.events] == [1]
    helper.assert_same(helper.without_our_keys(history), expected_history)
    helper.assert_same(helper.state(model), helper.state(expected))
    assert_replicas_agree(model)


def test_clipping_under_a_strategy_is_that_of_one_device(strategy):
    x, y = helper.regression_data(24)
    y[4:8] = -y[:4]  # opposing gradients
    x[4:8] = x[:4]
    seen = GradientHistory()
    model = mirrored(strategy, lambda: keras.optimizers.SGD(0.5))
    helper.fit(model, x, y, [GradientClipping(global_clipnorm=0.2), seen])
    native = keras.optimizers.SGD(0.5, global_clipnorm=0.2)
    expected = helper.regression(native)
    single = GradientHistory()
    helper.fit(expected, x, y, [single])
    assert (single.global_norm > 0.2).all()
    np.testing.assert_allclose(seen.global_norm, single.global_norm, 1e-5)
    np.testing.assert_allclose(seen.clipped_norm, 0.2, 1e-4)
    np.testing.assert_allclose(seen.loss, single.loss, 1e-5)
    helper.assert_same(
        helper.values(model.weights), helper.values(expected.weights), 1e-6
    )
    assert_replicas_agree(model)


def test_the_rate_is_cut_once_under_a_strategy(strategy):
    x, y = helper.regression_data(24)
    model = mirrored(strategy, lambda: keras.optimizers.SGD(schedule()))
    seen, cut = GradientHistory(), ReduceLROnExplosion(verbose=0)
    helper.fit(model, helper.with_nan(x, 0, 8, slice(5, 6)), y, [cut, seen])
    np.testing.assert_allclose(
        seen.learning_rate, [0.05, 0.025, 0.025 * 0.8**0.5], 1e-5
    )
    assert_replicas_agree(model)


def test_logs_that_are_no_metric_stay_those_of_the_last_good_step():
    class Own(steps.OwnStep, keras.Sequential):
        def own_loss(self, data):
            x, y = data
            return self.compute_loss(x, y, self(x, training=True)), None

        def own_logs(self, data, loss, predictions):
            # "loss" is the name of a metric of Keras, too, which has seen nothing.
            return {"loss": loss, "twice": 2 * loss, "count": ops.full((), 3)}

    def train(x, y):
        keras.utils.set_random_seed(0)
        model = Own([keras.Input((5,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        return helper.fit(model, x, y, [SkipOnExplosion(verbose=0)])

    x, y = helper.regression_data(24)
    expected = helper.without_our_keys(train(x[:16], y[:16]))
    actual = helper.without_our_keys(train(helper.with_nan(x, 2, 8), y))
    assert actual == expected and actual["loss"][0] > 0


def test_a_multi_optimizer_of_a_function_is_built_with_the_step():
    x, y = helper.regression_data(24)
    members = [keras.optimizers.SGD(schedule()), keras.optimizers.SGD(schedule())]
    choose = lambda variable: members["bias" in variable.path]  # noqa: E731
    model = helper.regression(keras.optimizers.MultiOptimizer(choose))
    cut = ReduceLROnExplosion(factor=0.5, verbose=0)
    helper.fit(model, helper.with_nan(x, 0, 8), y, [cut])
    for member in members:
        uncut = 0.05 * 0.8 ** (2 / 2)
        np.testing.assert_allclose(float(member.learning_rate), uncut / 2, 1e-6)


def test_windows_of_several_lengths_are_refused():
    members = keras.optimizers.OptimizerMap(
        keras.optimizers.SGD(0.1),
        {".*bias": keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)},
    )
    model = helper.regression(keras.optimizers.MultiOptimizer(members))
    with pytest.raises(ValueError, match="gradient_accumulation_steps"):
        helper.fit(model, *helper.regression_data(8), [SkipOnExplosion()])


@pytest.mark.tensorflow
def test_a_log_of_unknown_rank():
    import tensorflow as tf

    class Odd(keras.Sequential):
        def train_step(self, data):
            odd = tf.py_function(lambda: 1.5, [], tf.float32)
            return {**super().train_step(data), "odd": odd}

    model = Odd([keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = helper.regression_data(16)
    assert helper.fit(model, x, y, [SkipOnExplosion(verbose=0)])["odd"] == [1.5]


@pytest.mark.tensorflow
@pytest.mark.jax
def test_a_spike_within_the_first_execution():
    """Before any limits are drawn, the largest steps so far are the measure."""
    x, y = helper.regression_data(160)
    x[48:56] *= 1e5
    model = helper.regression(keras.optimizers.SGD(1e-3))
    model.compile(model.optimizer, "mse", steps_per_execution=20)
    skip = SkipOnExplosion(verbose=0)
    helper.fit(model, x, y, [skip])
    assert {(e.step, e.action) for e in skip.events} == {(6, "skipped")}
