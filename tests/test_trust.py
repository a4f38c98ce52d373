"""The trust region: its arithmetic against NumPy, and in real runs."""

import contextlib
import itertools

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.train_step.trust_region import FLOOR, TrustRegion
from tests import helper


def tensors(values):
    return {name: ops.convert_to_tensor(float(v)) for name, v in values.items()}


def by_hand(before, after, gradients, loss, radius, element, decrease):
    """What is left of an update, in NumPy float64; kernel and bias in turn."""
    left, root = [], None
    for old, new in zip(before, after, strict=True):
        change = (new - old).astype("float64")
        if old.ndim >= 2:
            root = max(np.sqrt((old**2).mean()), FLOOR)
        change = np.clip(change, -element * radius * root, element * radius * root)
        if old.ndim >= 2:
            norm = np.linalg.norm(change)
            change = change * min(1.0, radius * root * np.sqrt(old.size) / norm)
        left.append(change)
    gain = abs(sum((g * c).sum() for g, c in zip(gradients, left, strict=True)))
    share = min(1.0, decrease * loss / gain) if loss > 0 else 1.0
    return [old + share * change for old, change in zip(before, left, strict=True)]


def limited(region, before, after, gradients, loss):
    def inner(groups, moved):
        pairs = zip(gradients, groups.split(moved), strict=True)
        return sum(ops.sum(ops.convert_to_tensor(g) * m) for g, m in pairs)

    weights, held = region.limit(
        [ops.convert_to_tensor(b) for b in before],
        [ops.convert_to_tensor(a) for a in after],
        inner,
        ops.convert_to_tensor(loss, "float32"),
        tensors(region.initial_state(2)),
        tensors(region.settings),
    )
    return [np.asarray(w) for w in weights], bool(held)


SHAPES = [(5, 4), (4,), (4, 3), (3,)]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e30])
@pytest.mark.parametrize("loss", [1e-3, 1e6, -1.0])
def test_what_is_left_is_that_of_numpy(size, loss):
    random = np.random.default_rng(0)
    make = lambda scale: [  # noqa: E731
        (scale * random.normal(size=s)).astype("float32") for s in SHAPES
    ]
    before, gradients = make(1.0), make(3.0)
    after = [b + c for b, c in zip(before, make(size), strict=True)]
    region = TrustRegion(radius=0.05, element=1.5, decrease=2.0)
    weights, held = limited(region, before, after, gradients, loss)
    expected = by_hand(before, after, gradients, loss, 0.05, 1.5, 2.0)
    steep = loss == 1e-3
    assert held is (size > 1e-3 or steep)
    helper.assert_same(weights, [e.astype("float32") for e in expected], 1e-5)


def test_what_is_within_stays_as_it_is():
    before = [np.ones((2, 2), "float32"), np.zeros(2, "float32")]
    after = [b + np.float32(1e-3) for b in before]
    weights, held = limited(TrustRegion(), before, after, before, 1.0)
    assert not held
    helper.assert_same(weights, after)


def test_infinite_weights_are_held():
    before = [np.ones((2, 2), "float32")]
    after = [np.array([[np.inf, -np.inf], [np.nan, 1]], "float32")]
    weights, held = limited(TrustRegion(0.1), before, after, before, 1.0)
    assert held and np.isfinite(weights[0]).all()
    assert weights[0][1, 0] == 1.0 and weights[0][0, 0] > 1.0 > weights[0][0, 1]


def test_weights_that_begin_at_zero_can_leave_it():
    before = [np.zeros((2, 2), "float32")]
    weights, _ = limited(TrustRegion(0.1), before, [b + 9 for b in before], before, 1.0)
    np.testing.assert_allclose(weights[0], 0.1 * FLOOR, 1e-5)


def advance(region, losses, held=True):
    """The radius and the rate's factor after each step; the first one trips."""
    state, seen = region.initial_state(2), []
    for step, loss in enumerate(losses):
        state, factor = region.advance(
            tensors(state),
            ops.convert_to_tensor(float(step)),
            ops.convert_to_tensor(step == 0),
            ops.convert_to_tensor(held or step == 0),
            ops.convert_to_tensor(loss, "float32"),
            tensors(region.settings),
        )
        state = {name: float(v) for name, v in state.items()}
        seen.append((state["radius"], float(factor), state["until"]))
    return np.array(seen)


def test_the_radius_shrinks_while_the_loss_does_not_fall():
    region = TrustRegion(0.02, least=0.006, window=10, quiet=30)
    seen = advance(region, [5.0] * 61)
    # The first full window is the yardstick; then one shrink each, as far as `least`.
    assert np.flatnonzero(seen[:, 1] < 1).tolist() == [20, 30]
    np.testing.assert_allclose(seen[[19, 20, 30, 60], 0], [0.02, 0.01, 0.006, 0.006])
    assert seen[60, 2] == 60 + 1 + 30


@pytest.mark.parametrize(
    "losses", [0.9 ** np.arange(80), -np.arange(80), np.full(80, np.nan)]
)
def test_the_radius_stays_while_the_loss_falls_or_is_not_known(losses):
    assert (advance(TrustRegion(window=10), losses)[:, 1] == 1).all()


def test_no_cut_where_nothing_is_held():
    seen = advance(TrustRegion(window=10, quiet=30), [5.0] * 80, held=False)
    assert (seen[:, 1] == 1).all() and (seen[:, 2] == 31).all()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"radius": 0}, "radius.*> 0.*0"),
        ({"element": 0.5}, "element.*>= 1.*0.5"),
        ({"shrink": 1.0}, "shrink.*< 1.*1.0"),
        ({"window": 0}, "window.*>= 1.*0"),
        ({"quiet": 1.5}, "quiet.*integer >= 1.*1.5"),
    ],
)
def test_a_bad_argument_is_named(arguments, match):
    with pytest.raises(ValueError, match=f"TrustRegion: `{match}"):
        TrustRegion(**arguments)


def weights_now(model):
    helper.sync(model)
    return model.get_weights()


def wild(x, y, **kwargs):
    """A `fit` with Adam at a rate of 1, protected; weights of each step's end."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    helper.compiled(model, keras.optimizers.Adam(1.0), **kwargs)
    seen = [model.get_weights()]
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(weights_now(model))
    )
    watching = GradWatch(verbose=0)
    helper.fit(model, x, y, [watching, keep], 16)
    return seen, watching


@pytest.mark.parametrize(
    "compile_it",
    [
        pytest.param(False, id="graph", marks=pytest.mark.thorough),
        pytest.param(True, id="xla", marks=[pytest.mark.tensorflow, pytest.mark.jax]),
    ],
)
def test_every_update_of_a_wild_run_is_held(compile_it, digits):
    seen, watching = wild(*digits, jit_compile=compile_it)
    for before, after in itertools.pairwise(seen):
        for old, new in zip(before[::2], after[::2], strict=True):
            ratio = np.linalg.norm(new - old) / np.linalg.norm(old)
            assert 0 < ratio < 0.02 * 1.001
    (event,) = watching.events
    assert (event.step, event.kind, event.action) == (0, "update", "clipped")
    assert "updates are held to 0.02 times the weights" in event.message
    assert watching.history.applied.all() and watching.history.held.all()
    np.testing.assert_allclose(watching.history.trust_radius, 0.02)


def test_sparse_gradients_and_replicas(strategy):
    """Held on two replicas as on one device, an embedding's rows too."""
    random = np.random.default_rng(0)
    x, y = random.integers(0, 20, (48, 6)), random.integers(0, 2, 48)

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
        assert watching.history.held[0] and watching.events[0].action == "clipped"
        return model.get_weights()

    helper.assert_same(train(strategy.scope()), train(contextlib.nullcontext()), 1e-5)


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


@pytest.mark.parametrize("steps", helper.few([3], [1, 3]))
def test_a_moving_average_is_that_of_what_was_left(steps, digits):
    """Also where Keras writes it over the weights, when training ends."""
    x, y = digits
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    optimizer = keras.optimizers.Adam(1.0, use_ema=True, ema_momentum=0.8)
    helper.compiled(model, optimizer)
    seen = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(weights_now(model))
    )
    watching = GradWatch(verbose=0)
    helper.fit(model, x[: 16 * steps], y[: 16 * steps], [watching, keep], 16)
    assert watching.history.held.all() and len(seen) == steps
    average = seen[0]
    for weights in seen[1:]:
        pairs = zip(average, weights, strict=True)
        average = [0.8 * a + 0.2 * w for a, w in pairs]
    helper.assert_same(model.get_weights(), average, 1e-5)


def test_a_cut_of_the_rate_is_told_as_what_it_is(digits):
    keras.utils.set_random_seed(0)
    x, y = digits
    noise = np.random.default_rng(0).permutation(y)  # nothing that could be learned
    hidden = [keras.layers.Dense(64, "relu") for _ in range(2)]
    model = keras.Sequential([*hidden, keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(0.1))
    watching = GradWatch(verbose=0)
    helper.fit(model, 16 * x, noise, [watching], 4, epochs=10)
    onset, cut = watching.events
    assert (onset.action, cut.action) == ("clipped", "rate reduced")
    assert "over the trust bound" in onset.message
    assert cut.value < cut.baseline and "trust bound" not in cut.message
    assert "the loss does not fall although updates are held" in cut.message
