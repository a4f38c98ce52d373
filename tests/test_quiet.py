"""The short way through a quiet step decides and remembers what the long one does."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch import detectors
from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion
from keras_gradwatch.detectors import Measurement, QuietSteps
from keras_gradwatch.detectors.base import AHEAD
from keras_gradwatch.train_step.statistics import NAMES
from tests import helper, steps

# On JAX there is one way.
pytestmark = [pytest.mark.tensorflow, pytest.mark.torch]

BATCH, STEPS = 4, 120


class LongWay(keras.callbacks.Callback):
    """Has every step go the long way, as after a change by the host."""

    def on_train_batch_begin(self, batch, logs=None):
        self.model.gradwatch.look_closely()


def train(callbacks, x, y, optimizer="adam"):
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(10)]
    model = helper.compiled(keras.Sequential([keras.Input((64,)), *layers]), optimizer)
    helper.fit(model, x, y, callbacks, BATCH, shuffle=False)
    return model


class Look(keras.callbacks.Callback):
    """Looks whether the step that begins may go the short way."""

    def __init__(self):
        super().__init__()
        self.may = []

    def on_train_batch_begin(self, batch, logs=None):
        # Not by `state`, which has the detectors brought up to date.
        for variable in self.model.gradwatch.variables:
            if variable.name == "gradwatch_lines":
                last = ops.convert_to_numpy(variable.value)[1, 3]
                self.may.append(bool(self.model.gradwatch.step <= last))


@pytest.fixture(scope="module")
def data():
    x, y = helper.digits(BATCH * STEPS)
    return x, y


@pytest.mark.parametrize("dense_steps", [0, None], ids=["seldom", "always"])
def test_both_ways_record_and_remember_the_same(dense_steps, data):
    x, y = data
    short, long = (GradWatch(dense_steps=dense_steps, verbose=0) for _ in range(2))
    quick = train([short, look := Look()], x, y)
    slow = train([long, LongWay()], x, y)
    assert sum(look.may) > 60
    helper.assert_same(helper.state(quick), helper.state(slow))
    for name in ("global_norm", "clipped_norm", "loss", "applied"):
        np.testing.assert_array_equal(
            getattr(short.history, name), getattr(long.history, name)
        )
    for name in NAMES:
        np.testing.assert_array_equal(
            short.history.statistics[name], long.history.statistics[name]
        )
    assert_same_memory(quick, slow)


def assert_same_memory(quick, slow):
    """Compares what the detectors of two models remember."""
    actual, expected = (
        model.gradwatch.state(lambda name: name.startswith("site"))
        for model in (quick, slow)
    )
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if "/trust/" not in name:  # idle: of no use before the next onset
            np.testing.assert_allclose(actual[name], value, 1e-5, err_msg=name)


@pytest.mark.parametrize("step", [71, 118])
@pytest.mark.parametrize("kind", ["nonfinite", "norm spike"])
def test_what_comes_after_quiet_steps_is_skipped_in_its_own_step(kind, step, data):
    x, y = data[0].copy(), data[1]
    bad = slice(step * BATCH, (step + 1) * BATCH)
    x[bad] = np.nan if kind == "nonfinite" else x[bad] * 1e6
    watching = GradWatch(dense_steps=0, verbose=0, detector=detectors.ZScore())
    train([watching], x, y, keras.optimizers.SGD(0.01))
    assert {(e.step, e.kind, e.action) for e in watching.events} == {
        (step, kind, "skipped")
    }
    assert watching.history.applied.tolist() == [s != step for s in range(STEPS)]


class Raise(keras.callbacks.Callback):
    """Has the rate jump at batch 63."""

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 63:
            self.model.optimizer.learning_rate.assign(1e3)


def test_a_rate_that_rises_has_the_update_judged_at_once(data):
    x, y = data
    watching = GradWatch(dense_steps=0, verbose=0)
    train([watching, Raise()], x, y, keras.optimizers.Adam(1e-4))
    first = watching.events[0]
    assert (first.step, first.kind, first.action) == (63, "update", "clipped")


def test_an_update_that_is_found_too_large_is_held_as_on_the_long_way(data):
    x, y = data
    short, long = (GradWatch(dense_steps=None, verbose=0) for _ in range(2))
    quick = train([short, look := Look(), Raise()], x, y, keras.optimizers.Adam(1e-4))
    slow = train([long, LongWay(), Raise()], x, y, keras.optimizers.Adam(1e-4))
    # The lines are as they were: it is the update itself that shows it.
    assert look.may[63 - 50]
    assert (short.events[0].step, short.events[0].action) == (63, "clipped")
    told, expected = (
        [(e.step, e.kind, e.value) for e in w.events] for w in (short, long)
    )
    assert told == expected
    helper.assert_same(helper.state(quick), helper.state(slow))
    assert_same_memory(quick, slow)
    for name in NAMES:
        np.testing.assert_array_equal(
            short.history.statistics[name], long.history.statistics[name]
        )


def test_the_update_of_a_quiet_step_is_the_stock_one_where_all_are_judged(data):
    x, y = data
    watching = GradWatch(dense_steps=None, verbose=0)
    watched, stock = train([watching, look := Look()], x, y), train([], x, y)
    assert sum(look.may) > 60
    helper.assert_same(helper.state(watched), helper.state(stock))
    ratios = watching.history.statistics["update_ratio"]
    assert ratios.shape == (STEPS, 4) and not np.isnan(ratios).any()


def test_a_rule_of_ones_own_sees_every_step(data):
    x, y = data

    class Early(detectors.ZScore):
        """Inherits a short way that is not its own."""

        kind = "early"

        def detect(self, measured, state, settings):
            verdict, state = super().detect(measured, state, settings)
            return verdict._replace(tripped=measured.step > 100), state

    skip = SkipOnExplosion(detector=Early(), verbose=0)
    train([skip], x, y)
    assert [e.step for e in skip.events] == list(range(101, STEPS))


def test_a_quantity_of_ones_own_sees_every_step(data):
    x, y = data

    class Late(detectors.ZScore):
        """Judges something that neither the norm nor the loss shows."""

        def quantity(self, measured):
            return ops.where(measured.step == 110, 1e6, 1.0)

    skip = SkipOnExplosion(detector=Late(), verbose=0)
    train([skip], x, y)
    assert [e.step for e in skip.events] == [110]


# -- what the detectors remember is taken in, whatever the host does -------------------


def remembered(model):
    """All numbers that the detectors of a model remember."""
    state = model.gradwatch.state(lambda name: name.startswith("site"))
    return np.concatenate([np.ravel(value) for value in state.values()])


def test_other_variables_are_trained(data):
    """The ring is made anew while quiet steps are not taken in yet."""
    x, y = data
    watching = GradWatch(dense_steps=0, verbose=0)
    model = train([watching], x, y)
    helper.fit(model, x[:28], y[:28], batch_size=BATCH, shuffle=False)
    model.layers[0].trainable = False
    model.compile("sgd", model.loss)
    helper.fit(model, x[:28], y[:28], batch_size=BATCH, shuffle=False)
    helper.fit(model, x, y, [watching], batch_size=BATCH, shuffle=False)
    assert np.isfinite(remembered(model)).all()
    assert watching.history.applied.all()


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_layer_that_is_left_out_now_and_then(data):
    x, y = data

    class Sometimes(keras.Model):
        def __init__(self):
            super().__init__()
            self.calls = 0
            self.first = keras.layers.Dense(64)
            self.middle = keras.layers.Dense(16)
            self.last = keras.layers.Dense(10)

        def call(self, inputs):
            self.calls += 1
            used = self.first(inputs)
            return self.last(self.middle(inputs if self.calls % 5 == 0 else used))

    keras.utils.set_random_seed(3)
    model = helper.compiled(Sometimes(), "sgd")
    model.run_eagerly = True  # or TensorFlow calls the layers only once
    watching = GradWatch(dense_steps=0, verbose=0)
    helper.fit(model, x, y, [watching], BATCH, shuffle=False)
    norms = watching.history.statistics["norm"]
    assert np.isnan(norms[50:, 0]).any() and np.isfinite(norms[50:, 0]).any()
    assert np.isfinite(remembered(model)).all()


def test_callbacks_that_never_came_to_fit(data):
    """`evaluate` tells a callback of the model, and then nothing of a training."""
    x, y = data
    watching = GradWatch(dense_steps=0, verbose=0)
    model = train([watching], x, y)
    other = SkipOnExplosion(detector=detectors.NormThreshold(5.0), verbose=0)
    model.evaluate(x, y, callbacks=[other], verbose=0)
    helper.fit(model, x[:28], y[:28], batch_size=BATCH, shuffle=False)
    helper.fit(model, x, y, [watching], batch_size=BATCH, shuffle=False)
    assert np.isfinite(remembered(model)).all()
    assert watching.history.applied.all()


# -- one rule at a time ----------------------------------------------------------------

KERNELS = [True, False, True, False]


def rules():
    return [
        detectors.ZScore(warmup=5),
        detectors.LossSpike(factor=2.0, warmup=5),
        detectors.NormThreshold(3.0),
        detectors.Vanishing(patience=3),
        detectors.Collapse(steps=3),
        detectors.Divergence(factor=2.0, steps=10),
        detectors.DeadUnits(),
        detectors.NonFinite(),
        detectors.UpdateRatio(),
    ]


def measurement(step, norms, loss):
    matrix = np.full((4, len(NAMES)), np.nan, "float32")
    matrix[:, 0], matrix[:, NAMES.index("nonfinite_count")] = norms, 0
    whole = np.float32(np.sqrt(np.sum(np.square(norms))))
    return {
        "step": np.int32(step),
        "loss": np.float32(loss),
        "global_norm": whole,
        "statistics": matrix,
        "finite": np.array(True),
        "sizes": np.full(4, 10, "float32"),
        "kernels": np.array(KERNELS),
        "loss_scale": np.float32(np.nan),
    }


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: type(rule).__name__)
def test_a_rule_does_the_same_within_its_lines(rule):
    """Over a run that wanders, spikes, and vanishes."""
    random = np.random.default_rng(0)
    level = np.cumsum(random.normal(0, 0.1, 300))
    drift = np.cumsum(random.normal(0, 0.1, (300, 4)), axis=0)
    norms = np.exp(drift + np.where(random.random((300, 1)) < 0.03, 3, 0))
    norms[150:200] *= [1e-7, 1, 1, 1]
    losses = np.exp(level + np.where(random.random(300) < 0.03, 2, 0))

    @steps.traced
    def detect(given, state, settings):
        verdict, new = rule.detect(Measurement(**given), state, settings)
        quick = Measurement(**{**given, "kernels": KERNELS})
        drawn = rule.lines(quick, state, settings)
        return verdict.tripped, new, drawn

    @steps.traced
    def advance(given, state, settings):
        quiet = QuietSteps(**given, kernels=KERNELS)
        return {**state, **rule.advance(quiet, state, settings)}

    def tensors(values):
        return {n: ops.convert_to_tensor(v) for n, v in values.items()}

    state = tensors(rule.initial_state(4))
    settings = tensors({n: np.float32(v) for n, v in rule.settings.items()})
    given = [
        measurement(step, norms[step].astype("float32"), losses[step])
        for step in range(300)
    ]
    states, tripped, lines = [state], [], []
    for measured in given:
        answers = detect(tensors(measured), states[-1], settings)
        tripped.append(bool(answers[0]))
        states.append(answers[1])
        lines.append({n: np.asarray(pair) for n, pair in answers[2].items()})

    counts = []
    for begin in range(0, 300 - AHEAD, 2):
        count = within(lines[begin], given[begin : begin + AHEAD])
        counts.append(count)
        assert not any(tripped[begin : begin + count])
        rows = gathered(given[begin : begin + count])
        short = advance(tensors(rows), states[begin], settings)
        for name, value in states[begin + count].items():
            np.testing.assert_allclose(
                np.asarray(short[name]), np.asarray(value), 2e-5, 1e-6, err_msg=name
            )
    assert np.sum(counts) > 300


def within(lines, steps):
    """How many of a list of steps keep within lines, until the first does not."""
    for count, step in enumerate(steps):
        for name, (low, top) in lines.items():
            if not low < step[name] <= top:
                return count
    return len(steps)


def gathered(steps):
    """What `QuietSteps` says of a list of steps."""
    there = np.arange(AHEAD) < len(steps)
    rows = np.ones((AHEAD, 6), "float32")
    for row, step in zip(rows, steps, strict=False):
        row[:] = [step["loss"], step["global_norm"], *step["statistics"][:, 0]]
    return {
        "there": there,
        "count": np.float32(len(steps)),
        "loss": rows[:, 0],
        "global_norm": rows[:, 1],
        "norms": rows[:, 2:],
    }
