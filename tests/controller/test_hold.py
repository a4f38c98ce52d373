"""Updates that are held to the trust region, in real runs."""

import contextlib
import itertools
import re

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.detectors import NormThreshold, UpdateRatio
from keras_gradwatch.train_step.trust_region import FLOOR
from tests import helper

# Weights of which the first trial kills all units.
SEEDS = {"tensorflow": [0, 1], "jax": [0, 8], "torch": [0]}[keras.config.backend()]
# Weights with which a trial succeeds, and the loss rises soon after.
RELAPSES = {"tensorflow": [1, 4], "jax": [0], "torch": [1]}[keras.config.backend()]


def weights_now(model):
    helper.sync(model)
    return model.get_weights()


def digits_model(optimizer, hidden=(), **kwargs):
    """A model on digits, and a list that gets its weights at the end of each step."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(units, "relu") for units in hidden]
    model = keras.Sequential([keras.Input((64,)), *layers, keras.layers.Dense(10)])
    helper.compiled(model, optimizer, **kwargs)
    seen = [model.get_weights()]
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(weights_now(model))
    )
    return model, seen, keep


def assert_held(seen):
    """Each step of several has changed the kernels by at most the trust radius."""
    for before, after in itertools.pairwise(seen):
        for old, new in zip(before[::2], after[::2], strict=True):
            ratio = np.linalg.norm(new - old) / np.linalg.norm(old)
            assert 0 < ratio < 0.02 * 1.001


@pytest.mark.parametrize(
    "compile_it",
    [
        pytest.param(False, id="graph", marks=pytest.mark.thorough),
        pytest.param(True, id="xla", marks=[pytest.mark.tensorflow, pytest.mark.jax]),
    ],
)
def test_every_update_after_one_that_did_harm_is_held(compile_it, digits):
    """The loss of the second step convicts the first one; both leave no trace."""
    adam = keras.optimizers.Adam(1.0)
    model, seen, keep = digits_model(adam, [32], jit_compile=compile_it)
    helper.fit(model, *digits, [watching := GradWatch(verbose=0), keep], 16)
    start, _, put_back, *others = seen
    helper.assert_same(put_back, start, None)
    assert len(others) == 4
    assert_held([put_back, *others])
    (event,) = watching.events
    assert (event.step, event.kind, event.action) == (1, "update", "reverted")
    assert event.variable.endswith("kernel") and event.value > event.baseline == 0.5
    history = watching.history
    for words in (
        "of its norm (limit 50%)",
        f"the loss went from {history.loss[0]:.3g} before it to "
        f"{history.loss[1]:.3g} after it",
        "the weights were restored",
        "updates are now limited to 2.00% of the weights' norm",
    ):
        assert words in event.message
    assert history.applied.tolist() == [True, False, *[True] * 4]
    assert history.held.tolist() == [False, False, *[True] * 4]
    np.testing.assert_allclose(history.trust_radius, [np.nan, *[0.02] * 5])


@pytest.mark.parametrize("rate", helper.few([3e38], [1e6, 3e38]))
def test_an_update_that_no_run_survives_is_put_back_at_once(rate, digits):
    """Whether it can be told as a number or not."""
    model, seen, keep = digits_model(keras.optimizers.SGD(rate))
    helper.fit(model, *digits, [watching := GradWatch(verbose=0), keep], 16)
    helper.assert_same(seen[1], seen[0], None)
    assert_held(seen[1:])
    (event,) = watching.events
    assert (event.step, event.kind, event.action) == (0, "update", "reverted")
    assert watching.history.applied.tolist() == [False, *[True] * 5]
    assert watching.history.held.tolist() == [False, *[True] * 5]


def test_a_harmful_gradient_does_not_stay_in_the_momentum(digits):
    """It would lead the updates of the next hundred steps."""
    x, y = digits
    x = x.copy()
    x[16:32] *= 1e6  # step 1, before there is any baseline
    model, *_ = digits_model(keras.optimizers.SGD(0.1, 0.9), [32])
    slots = []

    def note(batch, logs=None):
        helper.sync(model)
        kept = [v for v in model.optimizer.variables if len(v.shape) == 2]
        slots.append([keras.ops.convert_to_numpy(v).copy() for v in kept])

    keep = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    helper.fit(model, x, y, [watching := GradWatch(verbose=0), keep], 16)
    (event,) = [e for e in watching.events if e.action == "reverted"]
    assert event.step == 1 and event.value > 1e3
    assert all(np.abs(v).max() > 0 for v in slots[0])
    # The snapshot is that of the begin.
    assert all((v == 0).all() for v in slots[1])
    assert all(0 < np.abs(v).max() < 10 for v in slots[-1])
    # Nor in the baselines: the next such batch is found.
    states = model.gradwatch.controller.state()["detectors"][0]
    assert states["ZScore_0"]["peak"] < 100 and states["LossSpike_0"]["peak"] < 100


def test_an_update_over_the_bound_that_does_no_harm_stands(digits):
    """As in stock Keras, and nothing is reported."""
    x, y = digits
    stock, expected, keep = digits_model(keras.optimizers.SGD(0.05))
    helper.fit(stock, x, y, [keep], 16)
    model, seen, keep = digits_model(keras.optimizers.SGD(0.05))
    watching, history = GradWatch(trust_bound=1e-6, verbose=0), GradientHistory()
    helper.fit(model, x, y, [watching, history, keep], 16)
    # Each of them was over the bound, and none of them too large for its loss.
    assert (history.statistics["update_ratio"][0] > 1e-6).all()
    assert watching.events == [] and watching.history.applied.all()
    assert not watching.history.held.any()
    helper.assert_same(seen, expected)


def test_sparse_gradients_and_replicas(strategy):
    """Held on two replicas as on one device, an embedding's rows too."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 20, (80, 6)), random.integers(0, 2, 80)

    def train(scope):
        keras.utils.set_random_seed(0)
        with scope:
            model = keras.Sequential(
                [
                    keras.Input((6,), dtype="int32"),
                    keras.layers.Embedding(20, 4),
                    keras.layers.Flatten(),
                    keras.layers.Dense(2),
                ]
            )
            helper.compiled(model, keras.optimizers.SGD(300.0))
        helper.fit(model, x, y, [watching := GradWatch(verbose=0)], 16)
        assert watching.history.held.tolist() == [False, False, True, True, True]
        assert [e.action for e in watching.events] == ["reverted"]
        return model.get_weights()

    helper.assert_same(train(strategy.scope()), train(contextlib.nullcontext()), 1e-5)


@pytest.mark.thorough
def test_constraints_hold_for_what_is_left():
    x, y = helper.regression_data(24)
    keras.utils.set_random_seed(0)
    norm = keras.constraints.UnitNorm(axis=0)
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, kernel_constraint=norm)]
    )
    model.compile(keras.optimizers.SGD(50.0), "mse")
    seen = GradientHistory()
    helper.fit(model, x, y, [GradWatch(verbose=0), seen])
    assert seen.held.any()
    np.testing.assert_allclose(np.linalg.norm(model.get_weights()[0], axis=0), 1, 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("optimizer", "reverted"),
    [(keras.optimizers.Adam, 1.0), (keras.optimizers.SGD, 3e38)],
    ids=["a step later", "at once"],
)
def test_a_moving_average_is_that_of_what_was_left(optimizer, reverted, digits):
    """Also where Keras writes it over the weights, when training ends.

    An update that was put back counts with the weights that it was put back to.
    """
    rate, late = reverted, optimizer is keras.optimizers.Adam
    averaging = optimizer(rate, use_ema=True, ema_momentum=0.8)
    model, seen, keep = digits_model(averaging)
    helper.fit(model, *digits, [watching := GradWatch(verbose=0), keep], 16)
    start, *others = seen
    others = others[2:] if late else others[1:]  # what is skipped does not count
    assert watching.history.held[-len(others) :].all() and len(others) >= 4
    average = start
    for weights in others:
        pairs = zip(average, weights, strict=True)
        average = [0.8 * a + 0.2 * w for a, w in pairs]
    helper.assert_same(model.get_weights(), average, 1e-5)


@pytest.mark.thorough
def test_a_cut_of_the_rate_is_told_as_what_it_is(digits):
    """And the radius is cut with it, from the next step on."""
    x, y = digits
    noise = np.random.default_rng(0).permutation(y)  # nothing that could be learned
    model, seen, keep = digits_model(keras.optimizers.SGD(1.0), [64, 64])
    watching = GradWatch(verbose=0, max_rewinds=0)  # no snapshot is tried
    helper.fit(model, 16 * x, noise, [watching, keep], 4, epochs=10)
    onset, *others = watching.events
    assert onset.action == "reverted" and "of its norm (limit 50%)" in onset.message
    cuts = [e for e in others if e.action == "rate reduced"]
    rest = [e for e in others if e not in cuts and e.action != "reverted"]
    assert cuts and all("updates of this fit were limited" in e.message for e in rest)
    history = watching.history
    for cut in cuts:
        assert "trust bound" not in cut.message
        assert "the loss does not fall although updates are limited" in cut.message
        radius = history.trust_radius[cut.step : cut.step + 2]
        assert radius[1] == max(radius[0] / 2, np.float32(5e-4))
    # What is recorded is what was in force: steps are read some steps later.
    rates = np.flatnonzero(np.diff(history.learning_rate) < 0)
    assert len(rates) == len(cuts)
    assert all(rate >= cut.step for rate, cut in zip(rates, cuts, strict=True))
    assert history.held[history.steps > onset.step].any()
    for step in np.flatnonzero(history.held):
        for old, new in zip(seen[step][::2], seen[step + 1][::2], strict=True):
            size = max(np.linalg.norm(old), FLOOR * old.size**0.5)
            limit = 1.001 * history.trust_radius[step]
            assert np.linalg.norm(new - old) / size < limit, step


def test_free_updates_that_do_harm_again_are_undone(digits):
    """Weights, slots and iterations are those from where they were tried."""
    model, seen, keep = digits_model(keras.optimizers.SGD(3.0, 0.9), [32])
    iterations = []

    def note(batch, logs=None):
        helper.sync(model)
        iterations.append(int(model.optimizer.iterations))

    count = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    watching = GradWatch(verbose=0)
    helper.fit(model, *digits, [watching, count, keep], 16, epochs=6)
    trials = [
        e for e in watching.events if "a trial without the limit failed" in e.message
    ]
    assert trials
    for event in trials:
        begin = int(re.search(r"state of step (\d+) was restored", event.message)[1])
        assert event.action == "reverted" and event.kind == "update"
        # `seen` begins with the first weights.
        helper.assert_same(seen[event.step + 1], seen[begin], None)
        assert iterations[event.step] == iterations[begin - 1]
        assert not watching.history.held[begin : event.step].any()
    begins = [event.step for event in trials]
    assert all(b - a > 20 for a, b in itertools.pairwise(begins))


def far_from_its_targets(**options):
    """A regression whose kernel has far to go, and one strange batch, step 3."""
    x, y = helper.regression_data(640)
    y = (100 * x[:, :3] - 50).astype("float32")
    y[8 * 3 : 8 * 4] += 1e6
    lax = NormThreshold(1e9) | UpdateRatio(1e-6)
    model = helper.regression(keras.optimizers.SGD(0.01))
    return x, y, model, GradWatch(detector=lax, verbose=0, **options)


def test_updates_that_were_held_without_need_are_free_again():
    """A strange batch looks like harm; the first trial of free updates ends that."""
    x, y, model, watching = far_from_its_targets()
    helper.fit(model, x, y, [watching], 8)
    assert [event.step for event in watching.events] == [3]
    radius, history = watching.history.trust_radius, watching.history
    assert (radius[4:24] == np.float32(0.02)).all() and history.held[4:24].all()
    assert np.isnan(radius[24:]).all() and not history.held[24:].any()
    assert (history.learning_rate == np.float32(0.01)).all()


def convolutions(scale, seed, optimizer=None):
    """A classifier of digits, kernels `scale` times He's, with a large rate."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    weights = {
        "kernel_initializer": lambda *args, **kwargs: (
            scale * keras.initializers.HeNormal()(*args, **kwargs)
        )
    }
    convolution = {"activation": "relu", "padding": "same", **weights}
    stack = [
        keras.Input((64,)),
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(8, 3, **convolution),
        layers.MaxPooling2D(2),
        layers.Conv2D(16, 3, **convolution),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(64, "relu", **weights),
        layers.Dense(10, **weights),
    ]
    optimizer = optimizer or keras.optimizers.SGD(0.5)
    return helper.compiled(keras.Sequential(stack), optimizer)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_network_that_dies_on_trial_is_put_back(seed):
    """Dead units guess, which is better than large weights are in their first steps."""
    x, y = helper.digits(1344)
    model = convolutions(2.0, seed)
    watching = GradWatch(verbose=0)
    helper.fit(model, x, y, [watching], 32, epochs=4)
    assert watching.events[0].action == "reverted"
    assert model.evaluate(x, y, verbose=0)[0] < 1.5  # guessing: 2.3


def test_a_trial_ends_with_the_epoch():
    """What is saved or evaluated at its end are never weights on trial."""
    x, y = helper.regression_data(8 * 32)  # nothing to learn
    y[8 * 3 : 8 * 4] += 1e6
    y[8 * 24 :] *= 1.3  # so that the trial fails
    lax = NormThreshold(1e9) | UpdateRatio(1e-6)
    model = helper.regression(keras.optimizers.SGD(0.1))
    watching, seen = GradWatch(detector=lax, verbose=0), []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(weights_now(model))
    )
    for begin in (0, 16):
        part = slice(8 * begin, 8 * begin + 8 * 16)
        helper.fit(model, x[part], y[part], [watching, keep], 8)
    radius = watching.history.trust_radius
    # On trial from step 24 on.
    assert (radius[4:24] == np.float32(0.02)).all() and np.isnan(radius[24:31]).all()
    assert watching.events[-1].step == 31
    helper.assert_same(weights_now(model), seen[23], None)


@pytest.mark.thorough
def test_a_trial_that_fails_late_does_not_hold_updates_for_good():
    """The second one fails where updates would just have been free again."""
    x, y = helper.regression_data(8 * 260)
    y[8 * 3 : 8 * 4] += 1e6
    for begin in (24, 84):
        y[8 * begin : 8 * (begin + 20)] *= 1.3
    lax = NormThreshold(1e9) | UpdateRatio(1e-6)
    model = helper.regression(keras.optimizers.SGD(1e-3))
    watching = GradWatch(detector=lax, verbose=0)
    helper.fit(model, x, y, [watching], 8)
    assert [event.step for event in watching.events] == [3, 43, 106]
    assert (watching.history.trust_radius[107:187] == np.float32(0.02)).all()
    assert model.gradwatch.variant == "light"


@pytest.mark.thorough
@pytest.mark.parametrize("validated", [False, True])
def test_a_trial_ends_where_a_callback_ends_the_epoch(validated):
    """Validation, too, is that of the weights that stay."""
    x, y, model, watching = far_from_its_targets()
    seen, epochs = [], []

    def look(batch, logs):
        del logs
        seen.append(weights_now(model))
        model.stop_training = batch == 27

    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=look, on_epoch_end=lambda epoch, logs: epochs.append(logs)
    )
    data = (x[:64], y[:64])
    options = {"validation_data": data} if validated else {}
    helper.fit(model, x, y, [keep, watching], 8, **options)
    assert np.isnan(watching.history.trust_radius[24:28]).all() and len(seen) == 28
    helper.assert_same(weights_now(model), seen[23], None)
    if validated:
        found = model.evaluate(*data, batch_size=8, verbose=0)
        np.testing.assert_allclose(epochs[0]["val_loss"], found, rtol=1e-5)
    # The next epoch begins with updates that are limited.
    helper.fit(model, x, y, [watching], 8)
    assert watching.history.trust_radius[28] == np.float32(0.02)


@pytest.mark.thorough
def test_every_step_on_trial_is_judged_before_the_next_one():
    """Also where only few steps are to be read one by one."""
    x, y, model, watching = far_from_its_targets(dense_steps=5)
    helper.fit(model, x, y, [watching], 8)
    assert [event.step for event in watching.events] == [3]
    ratios = watching.history.statistics["update_ratio"]
    measured = np.flatnonzero(np.isfinite(ratios).any(axis=1))
    # The attentive steps, those that are held, those on trial, each 50th.
    assert measured.tolist() == [*range(44), 50]


@pytest.mark.thorough
def test_there_is_no_trial_in_an_epoch_that_is_too_short():
    x, y, model, watching = far_from_its_targets()
    for begin in range(0, 640, 32):
        helper.fit(model, x[begin:][:32], y[begin:][:32], [watching], 8)
    assert (watching.history.trust_radius[4:] == np.float32(0.02)).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_loss_limit_of_an_update_on_trial_holds_for_one_step(seed):
    """An update over the bound in a sampled step: later losses may exceed its limit."""
    x = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
    y = x.sum(axis=1, keepdims=True)
    watch, weights = GradWatch(dense_steps=1, sample_freq=10, verbose=0), []
    for callbacks in ([], [watch]):
        keras.utils.set_random_seed(seed)
        hidden = keras.layers.Dense(16, "relu")
        model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.25), "mse")
        helper.fit(model, x, y, callbacks, 32, epochs=8)
        weights.append(model.get_weights())
    skipped = watch.history.steps[~watch.history.applied]
    assert set(skipped) <= {event.step for event in watch.events}
    if not watch.events:
        helper.assert_same(*weights, None)


@pytest.mark.parametrize("seed", RELAPSES)
def test_a_trial_that_succeeds_is_watched_for_a_while(seed):
    """The loss falls in the trial, and is as high as before it soon after."""
    x, y = helper.digits(1344)
    model = convolutions(1.0, seed, keras.optimizers.SGD(1.0, 0.9))
    watching = GradWatch(verbose=0)
    helper.fit(model, x, y, [watching], 32, epochs=5)
    loss, radius = watching.history.loss, watching.history.trust_radius
    pattern = r"above its level before the trial of step (\d+), .* \1 was restored"
    found = [
        (event, int(words[1]))
        for event in watching.events
        if (words := re.search(pattern, event.message))
    ]
    assert found
    for event, begin in found:
        assert event.action == "reverted" and 5 <= event.step - begin < 120
        assert np.isnan(radius[begin : event.step]).all()  # unlimited
        before, now = loss[begin - 10 : begin], loss[event.step - 9 : event.step + 1]
        assert np.log(now).mean() > np.log(before).mean()
        assert radius[event.step + 1] > 0
