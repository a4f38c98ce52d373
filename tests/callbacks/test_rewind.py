"""Going back to a snapshot, in real runs."""

import re

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradWatch, RewindOnExplosion
from keras_gradwatch.detectors import Collapse, Divergence, NormThreshold
from tests import helper


def tripping(step, x, y):
    """Data of which batch number `step` has targets a thousand times as large."""
    y = y.copy()
    y[step * 8 : (step + 1) * 8] *= 1e3
    return x, y


class Keep(keras.callbacks.Callback):
    """The model's state before each step."""

    def on_train_begin(self, logs=None):
        self.states = []

    def on_train_batch_begin(self, batch, logs=None):
        helper.sync(self.model)
        self.states.append(
            {
                "weights": self.model.get_weights(),
                "optimizer": [
                    v
                    for v, of in zip(
                        helper.values(self.model.optimizer.variables),
                        self.model.optimizer.variables,
                        strict=True,
                    )
                    if "learning_rate" not in of.path
                ],
            }
        )


OPTIMIZERS = {
    "adam, ema": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(0.01, momentum=0.9), initial_scale=4
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_everything_but_the_rate_goes_back(name):
    x, y = tripping(8, *helper.regression_data(120))
    model = helper.regression(OPTIMIZERS[name]())
    rewind = RewindOnExplosion(
        snapshot_freq=6, update_freq=3, detector=NormThreshold(100.0), verbose=0
    )
    keep, seen = Keep(), helper.Recorded()
    helper.fit(model, x, y, [rewind, keep, seen])
    (event,) = rewind.events
    # With accumulation the norm is that of the window, which ends with this step.
    assert (event.step, event.kind, event.action) == (8, "norm", "rewound")
    assert "the snapshot of step 6 was restored" in event.message
    # Found at the drain before step 9; what a step was given is what 6 was given.
    helper.assert_same(keep.states[9], keep.states[6])
    last, now = keep.states[8]["optimizer"], keep.states[9]["optimizer"]
    assert any((a != b).any() for a, b in zip(last, now, strict=True))
    rate = seen.learning_rate
    np.testing.assert_allclose(rate, [0.01] * 9 + [0.0025] * 6, 1e-6)
    assert seen.steps.tolist() == list(range(15))


def test_a_schedule_is_cut_too():
    x, y = tripping(3, *helper.regression_data(64))
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.5)
    model = helper.regression(keras.optimizers.SGD(schedule))
    rewind = RewindOnExplosion(
        snapshot_freq=2, update_freq=2, detector=NormThreshold(100.0), verbose=0
    )
    helper.fit(model, x, y, [rewind, seen := helper.Recorded()])
    # From step 4 on, the schedule's steps 2, 3, ... again, at a quarter.
    expected = [0.01 * 0.5**i for i in range(4)]
    expected += [0.0025 * 0.5**i for i in range(2, 6)]
    np.testing.assert_allclose(seen.learning_rate, expected, 1e-5)


def test_the_second_time_it_goes_further_back_and_then_it_stops(capsys):
    x, y = helper.regression_data(400)
    for step in (10, 20, 30):
        x, y = tripping(step, x, y)
    model = helper.regression(keras.optimizers.SGD(1e-4))
    rewind = RewindOnExplosion(
        snapshot_freq=100,
        update_freq=5,
        max_rewinds=2,
        detector=NormThreshold(100.0),
    )
    keep = Keep()
    helper.fit(model, x, y, [rewind, keep], epochs=3)
    assert [(e.step, e.action) for e in rewind.events] == [
        (10, "rewound"),
        (20, "rewound"),
        (30, "stopped"),
    ]
    assert model.gradwatch.step < 50
    helper.assert_same(model.get_weights(), keep.states[0]["weights"])
    out = capsys.readouterr().out
    assert "training stopped: the run still fails after 2 rollbacks" in out


def test_no_snapshot_of_what_is_not_sound():
    """A loss that has trebled is not kept, though nothing has tripped as yet."""
    x, y = helper.regression_data(160)
    y[64:] *= 30.0
    x, y = tripping(17, x, y)
    model = helper.regression(keras.optimizers.SGD(1e-4))
    rewind = RewindOnExplosion(
        snapshot_freq=1, update_freq=4, detector=NormThreshold(5e3), verbose=0
    )
    helper.fit(model, x, y, [rewind])
    (event,) = rewind.events
    assert "the snapshot of step 8 was restored" in event.message


@pytest.mark.thorough
@pytest.mark.tensorflow
@pytest.mark.torch
def test_a_network_that_has_died_goes_back():
    """Weights that switch every unit off, given in mid-run."""
    x, y = helper.digits(480)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(16, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    helper.compiled(model, keras.optimizers.SGD(0.1))

    def kill(batch, logs=None):
        if batch == 14:
            model.layers[0].bias.assign(np.full(16, -1e3))

    killer = keras.callbacks.LambdaCallback(on_train_batch_begin=kill)
    watching = GradWatch(verbose=0, update_freq=10, snapshot_freq=10)
    helper.fit(model, x, y, [watching, killer], 8)
    rewound = [e for e in watching.events if e.action == "rewound"]
    (event,) = rewound
    assert (event.step, event.kind) == (14 + 19, "collapse")
    assert "no gradient has reached any kernel for 20 steps" in event.message
    assert "the snapshot of step 10 was restored" in event.message
    assert (model.layers[0].get_weights()[1] > -1).all()
    # Held to a smaller trust region from there on.
    assert watching.history.trust_radius[14 + 22] == np.float32(0.02 * 0.25)
    # The baselines began anew with the way back, right behind the step that tripped.
    states = model.gradwatch.controller.state()["detectors"][0]
    assert states["ZScore_0"]["seen"] == 60 - (14 + 20)


@pytest.mark.tensorflow
@pytest.mark.torch
def test_a_nearly_dead_network_goes_back():
    """Units are off for all but a few images, so most batches give no gradient."""
    x, y = helper.digits(1797)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(32, "relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(0.1))

    planned = [30]

    def kill(batch, logs=None):
        if batch in planned:
            planned.clear()
            kernel, bias = model.layers[0].get_weights()
            most = (x @ kernel + bias).max(axis=1)
            model.layers[0].bias.assign(bias - np.quantile(most, 0.997))
            model.layers[1].bias.assign(np.full(32, 0.1))

    killer = keras.callbacks.LambdaCallback(on_train_batch_begin=kill)
    watch = GradWatch(verbose=0)
    helper.fit(model, x, y, [watch, killer], 32, epochs=4)
    (event,) = [e for e in watch.events if e.action == "rewound"]
    assert event.kind == "collapse" and 30 + 19 <= event.step < 30 + 40
    assert "in 20 of 40 steps, no gradient has reached the kernels" in event.message
    assert "the snapshot of step 0 was restored" in event.message
    report = watch.report()
    assert report.verdict.startswith(f"Collapsed at step {event.step}")
    assert not any("clipnorm" in fix for fix in report.fixes)  # from a dead network
    losses = watch.history.loss
    assert losses[-10:].mean() < 2 < 2.25 < losses[35:45].mean()


@pytest.mark.parametrize(
    ("best", "level", "healthy"),
    [(2.5, 2.6, True), (2.5, 3.6, False), (3.6, 4.0, True)],  # the last is a plateau
)
def test_a_snapshot_is_closer_to_the_best_loss_than_to_the_first(best, level, healthy):
    """The model predicts 0, so that targets make the loss 4, `best`, then `level`."""
    losses = np.repeat([4.0, best, level, 1e6], [20, 20, 40, 1])
    dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((1,)), dense])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    rewind = RewindOnExplosion(
        snapshot_freq=70, update_freq=1, detector=NormThreshold(100.0), verbose=0
    )
    x, y = np.ones((81, 1), "float32"), np.sqrt(losses)[:, None].astype("float32")
    helper.fit(model, x, y, [rewind], 1)
    (event,) = rewind.events
    restored = re.search(r"the snapshot of step (\d+) was restored", event.message)
    assert (int(restored[1]) > 0) == healthy


@pytest.mark.tensorflow
@pytest.mark.torch
def test_a_loss_that_comes_apart_goes_back():
    x, y = helper.regression_data(2400)
    model = helper.regression(keras.optimizers.SGD(0.01))

    def ruin(batch, logs=None):
        if batch == 105:
            model.layers[0].kernel.assign(np.full((5, 3), 50.0))

    ruiner = keras.callbacks.LambdaCallback(on_train_batch_begin=ruin)
    rewind = RewindOnExplosion(snapshot_freq=50, verbose=0)
    seen = helper.Recorded()
    helper.fit(model, x, y, [rewind, ruiner, seen], 8)
    (event,) = rewind.events
    assert event.kind == "divergence" and 105 < event.step < 210
    assert "the snapshot of step 100 was restored" in event.message
    assert seen.loss[-1] < 5 < seen.loss[110]


def test_on_two_replicas(strategy):
    x, y = tripping(3, *helper.regression_data(48))
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = helper.regression(keras.optimizers.Adam(0.01))
    rewind = RewindOnExplosion(
        snapshot_freq=2, update_freq=2, detector=NormThreshold(100.0), verbose=0
    )
    keep = Keep()
    helper.fit(model, x, y, [rewind, keep])
    assert [e.action for e in rewind.events] == ["rewound"]
    helper.assert_same(keep.states[4], keep.states[2])


def test_without_rewinds_no_snapshot_is_kept():
    watching = GradWatch(max_rewinds=0, verbose=0)
    assert not any(isinstance(d, Collapse | Divergence) for d in watching.detectors)


def edge(target, prediction):
    """Its gradient is NaN from where the error has come below 1/2."""
    error = ops.mean(ops.square(prediction - target))
    return ops.sqrt(error - 0.5)


def test_a_run_that_is_stuck_at_nan_goes_back():
    """Not the batches: no gradient is finite any more, whatever the batch."""
    x = np.random.default_rng(0).normal(size=(1600, 4)).astype("float32")
    y = 2 * x.sum(axis=1, keepdims=True)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), edge)
    watch = GradWatch(snapshot_freq=5, trust_bound=None, verbose=0)
    helper.fit(model, x, y, [watch], 160, epochs=20)
    gone_back = [e for e in watch.events if e.action == "rewound"]
    assert gone_back and gone_back[0].kind == "nonfinite"
    # A bad batch says nothing about the rate: the first time it stays.
    assert "at a lower rate" not in gone_back[0].message
    assert helper.all_finite(model.get_weights())


def test_nan_from_the_first_step_on_has_nothing_to_go_back_to():
    x, y = helper.regression_data(400)
    model = helper.regression()
    watch = GradWatch(max_events=60, verbose=0)
    helper.fit(model, np.full_like(x, np.nan), y, [watch], epochs=4)
    actions = [e.action for e in watch.events]
    assert actions == ["skipped"] * 59 + ["stopped"]
    assert model.stop_training


@pytest.mark.thorough
@pytest.mark.tensorflow
@pytest.mark.torch
def test_a_loss_on_another_scale_is_no_divergence():
    """The weight of the loss rises a thousandfold: the run continues, at its rate."""
    x, y = helper.regression_data(1600)
    weight = keras.Variable(1.0, trainable=False)

    def loss(target, prediction):
        return weight * ops.mean(ops.square(target - prediction))

    def run(callbacks):
        model = helper.regression(keras.optimizers.Adam(0.003))
        model.compile(model.optimizer, loss)
        weight.assign(1.0)
        rise = keras.callbacks.LambdaCallback(
            on_train_batch_begin=lambda batch, logs: (
                weight.assign(1000.0) if batch == 105 else None
            )
        )
        helper.fit(model, x, y, [rise, *callbacks], 8)
        return model

    stock, watched = run([]), run([watch := GradWatch(verbose=0)])
    actions = {event.action for event in watch.events}
    assert actions == {"skipped", "observed", "rate restored"}
    (event,) = [e for e in watch.events if e.kind == "divergence" and e.value > 1]
    assert "the data or the loss function must have changed" in event.message
    assert 110 < event.step < 170
    assert float(watched.optimizer.learning_rate) == np.float32(0.003)
    errors = [m.evaluate(x, y, verbose=0) for m in (stock, watched)]
    assert errors[1] < 1.2 * errors[0]
    applied = watch.history.applied
    assert (~applied).sum() == 5


def test_a_moderate_rise_that_the_data_explain_is_no_event():
    """Targets that are noise become 2.6 times as large: the loss, 6.8 times."""
    x, _ = helper.regression_data(2000)
    y = np.random.default_rng(1).normal(size=(2000, 3)).astype("float32")
    y[800:] *= 2.6
    model = helper.regression(keras.optimizers.SGD(1e-3))
    watch = GradWatch(verbose=0)
    helper.fit(model, x, y, [watch], 8)
    assert watch.events == [] and float(model.optimizer.learning_rate) > 9e-4


@pytest.mark.torch
def test_a_probe_ends_where_a_callback_ends_the_epoch():
    """The run keeps its own weights, not those of the snapshot that was tried."""
    x, y = helper.regression_data(1600)
    y[8 * 105 :] *= 30.0

    def run(last):
        model = helper.regression(keras.optimizers.Adam(0.003))
        seen = []

        def look(batch, logs):
            del logs
            helper.sync(model)
            seen.append(model.get_weights())
            model.stop_training = batch == last

        keep = keras.callbacks.LambdaCallback(on_train_batch_end=look)
        helper.fit(model, x, y, [keep, watch := GradWatch(verbose=0)], 8)
        return model, seen, watch

    _, seen, watch = run(None)
    (event,) = [e for e in watch.events if e.kind == "divergence" and e.value > 1]
    # A probe has three steps; the last one reports the event.
    begin = event.step - 3
    model, seen, watch = run(begin + 1)
    own, tried = seen[begin - 1][0], seen[begin][0]
    assert np.abs(tried - own).max() > 0.1
    # Adam's updates are at most as large as its rate.
    assert np.abs(model.get_weights()[0] - own).max() < 0.005
    assert "divergence" not in {e.kind for e in watch.events if e.value > 1}


def test_single_losses_are_no_measure_of_a_snapshot():
    """With batches of one row, the least loss is far below all others."""
    x, y = helper.regression_data(400)
    x[380] *= 1e6
    model = helper.regression(keras.optimizers.SGD(1e-4))
    rewind = RewindOnExplosion(
        snapshot_freq=20, update_freq=1, detector=NormThreshold(1e5), verbose=0
    )
    model.fit(x, y, 1, verbose=0, shuffle=False, callbacks=[rewind])
    restored = re.search(r"the snapshot of step (\d+)", rewind.events[0].message)
    assert rewind.events[0].step == 380 and int(restored[1]) >= 300


def test_saturated_units_whose_loss_was_never_low():
    """The loss rises to seven times its initial level within 60 small updates."""
    x, y = helper.digits(1280)
    losses = {}
    for name in ("stock", "watched"):
        keras.utils.set_random_seed(0)
        hidden = [keras.layers.Dense(48, "tanh") for _ in range(6)]
        model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
        helper.compiled(model, keras.optimizers.SGD(0.3, 0.9))
        watch = [GradWatch(verbose=0)] if name == "watched" else []
        losses[name] = helper.fit(model, x, y, watch, 32, epochs=6)["loss"][-1]
    (event,) = watch[0].events
    assert (event.kind, event.action) == ("divergence", "rewound")
    assert losses["stock"] > 10 and losses["watched"] < 1.5
