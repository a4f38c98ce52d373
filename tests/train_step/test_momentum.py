"""The momentum of an optimizer under the trust region, against NumPy in float64."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.keras_hooks.momentum import NAMES, momentums_of
from keras_gradwatch.train_step.momentum import limit_contributions
from tests import helper

BOUND = 0.1


def clipped(before, after):
    """A trust region that limits each element to a change of `BOUND`."""
    pairs = zip(before, after, strict=True)
    within = [b + ops.clip(ops.cast(a, "float32") - b, -BOUND, BOUND) for b, a in pairs]
    differs = [ops.any(ops.not_equal(w, a)) for w, a in zip(within, after, strict=True)]
    return within, ops.any(ops.stack(differs))


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
@pytest.mark.parametrize("kind", list(NAMES), ids=lambda kind: kind.__name__)
def test_a_contribution_is_limited_to_its_share(kind, size):
    """Two steps, the gradient of the second one `size` times that of the first."""
    options = {"momentum": 0.9} if NAMES[kind][1] == "momentum" else {}
    rates = {keras.optimizers.SGD: 0.01, keras.optimizers.RMSprop: 0.001}
    optimizer = kind(rates.get(kind, 0.02), **options)
    random = np.random.default_rng(0)
    variable = keras.Variable(random.normal(size=(4, 3)).astype("float32"))
    gradient = random.normal(size=(4, 3)).astype("float32")
    optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
    (found,) = momentums_of(optimizer, [variable])
    earlier, before = (
        ops.convert_to_numpy(v).copy() for v in (found.variable, variable)
    )
    optimizer.apply([ops.convert_to_tensor(size * gradient[::-1].copy())], [variable])
    (found,) = momentums_of(optimizer, [variable])
    made, after = (ops.convert_to_numpy(v).copy() for v in (found.variable, variable))

    weights, values, limited = limit_contributions(
        [found],
        [ops.convert_to_tensor(earlier)],
        [ops.convert_to_tensor(before)],
        [ops.convert_to_tensor(after)],
        clipped,
    )
    before, after, earlier, made = (
        v.astype("float64") for v in (before, after, earlier, made)
    )
    contribution = made - found.decay * earlier
    scale = (after - before) / made
    wanted = scale * contribution / (1 - found.decay)
    share = np.minimum(1.0, BOUND / np.abs(wanted))
    assert bool(limited) is bool((share < 1).any())
    momentum = found.decay * earlier + share * contribution
    np.testing.assert_allclose(
        ops.convert_to_numpy(values[0]), momentum, rtol=5e-3, atol=2e-5
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(weights[0]),
        before + scale * momentum,
        rtol=2e-3,
        atol=1e-5,
    )


def test_optimizers_without_momentum_have_none():
    variable = keras.Variable(np.ones((2, 2), "float32"))
    for optimizer in (keras.optimizers.SGD(0.1), keras.optimizers.RMSprop(0.1)):
        optimizer.build([variable])
        assert momentums_of(optimizer, [variable]) == [None]


@pytest.mark.parametrize("nesterov", helper.few([False], [False, True]))
def test_a_velocity_stays_within_the_trust_region(nesterov, digits):
    """In a run whose gradients would make it many times as long as the weights."""
    keras.utils.set_random_seed(1)
    hidden = keras.layers.Dense(32, "relu")
    model = keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(3.0, 0.9, nesterov))
    velocities, weights = [], [model.get_weights()]

    def note(batch, logs=None):
        helper.sync(model)
        velocities.append(helper.values(model.optimizer.momentums))
        weights.append(model.get_weights())

    noting = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    watching = GradWatch(verbose=0)
    helper.fit(model, *digits, [watching, noting], 16, epochs=2)
    steps = np.flatnonzero(watching.history.held)
    assert len(steps) >= 5
    for step in steps:
        for velocity, weight in zip(
            velocities[step][::2], weights[step][::2], strict=True
        ):
            # The weights, and so the region, were a little smaller in earlier steps.
            assert np.linalg.norm(velocity) < 0.02 * 1.1 * np.linalg.norm(weight)


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, 0.9),
    "adam": lambda: keras.optimizers.Adam(0.3),
}
# Without limited contributions, the mean accuracy is 0.3 or less with these.
SEEDS = {
    "tensorflow": {"sgd": (2, 4, 5), "adam": (0, 1, 2)},
    "jax": {"sgd": (2, 4, 6), "adam": (0, 3, 6)},
    "torch": {"sgd": (0, 3, 7), "adam": (4, 5, 7)},
}[keras.config.backend()]


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_unscaled_inputs_are_learned_with_momentum(name):
    """Their first gradients are many times as large as those after a few steps."""
    x, y = helper.digits(1344)
    accuracies = []
    for seed in SEEDS[name]:
        keras.utils.set_random_seed(seed)
        hidden = [keras.layers.Dense(32, "relu") for _ in range(2)]
        model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
        helper.compiled(model, OPTIMIZERS[name]())
        helper.fit(model, 255 * x, y, [GradWatch(verbose=0)], 32, epochs=6)
        accuracies.append(model.evaluate(255 * x, y, verbose=0)[1])
    assert np.mean(accuracies) > 0.5, accuracies  # with stock Keras: 0.1
