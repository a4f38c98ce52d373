"""Equal to Keras's own clips where Keras is right, and right where it is not."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientClipping, GradientHistory, GradWatch
from keras_gradwatch.policies import ClipByGlobalNorm
from keras_gradwatch.policies.named import NAMES
from tests import helper

LIMITS = {"clipnorm": 0.3, "clipvalue": 0.05, "global_clipnorm": 0.4}


def train(native, callbacks, make=helper.regression, data=None):
    model = make(keras.optimizers.SGD(0.1, momentum=0.9, **native))
    x, y = data or helper.regression_data(32)
    helper.fit(model, x, y, callbacks)
    return model


@pytest.mark.parametrize("name", helper.few(["clipvalue"], LIMITS))
def test_equal_to_keras(name):
    seen, limit = GradientHistory(), {name: LIMITS[name]}
    actual = train({}, [GradientClipping(**limit), seen])
    expected = train(limit, [])
    unclipped = train({}, [])
    helper.assert_same(actual.get_weights(), expected.get_weights(), 1e-6)
    assert not np.allclose(actual.get_weights()[0], unclipped.get_weights()[0], 1e-3)
    assert (seen.clipped_norm < seen.global_norm).all()
    assert (seen.global_norm > 0.4).all()


@pytest.mark.thorough
@pytest.mark.parametrize("name", LIMITS)
def test_equal_to_keras_on_an_embedding(name):
    ids = np.arange(24, dtype="int32").reshape(4, 6) % 12  # no id twice in a batch
    y = 10 * helper.regression_data(4, 1)[1]

    def make(optimizer):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                keras.Input((6,), dtype="int32"),
                keras.layers.Embedding(12, 4),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
        model.compile(optimizer, "mse")
        return model

    limit = {name: LIMITS[name] / 10}

    def weights(native, callbacks):
        model = make(keras.optimizers.SGD(0.1, **native))
        helper.fit(model, ids, y, callbacks, batch_size=2)
        return model.get_weights()

    actual = weights({}, [GradientClipping(**limit)])
    helper.assert_same(actual, weights(limit, []), 1e-6)


@pytest.mark.thorough
def test_a_policy_is_what_its_argument_says():
    limit = LIMITS["global_clipnorm"]
    actual = train({}, [GradientClipping(ClipByGlobalNorm(limit))])
    expected = train({}, [GradientClipping(global_clipnorm=limit)])
    helper.assert_same(actual.get_weights(), expected.get_weights())


def test_below_the_limit_nothing_is_changed():
    actual = train({}, [GradientClipping(global_clipnorm=1e3)])
    helper.assert_same(helper.state(actual), helper.state(train({}, [])))


def test_a_clip_of_the_optimizer_acts_as_in_stock_keras():
    """It comes after the policy."""
    seen, limit = GradientHistory(), {"clipvalue": 0.05}
    actual = train(limit, [GradientClipping(clipnorm=1e3), seen])
    helper.assert_same(actual.get_weights(), train(limit, []).get_weights())
    assert (seen.clipped_norm == seen.global_norm).all()


@pytest.mark.parametrize("name", helper.few(["clipnorm"], LIMITS))
@pytest.mark.parametrize("bad", helper.few([np.inf], [np.nan, np.inf]))
def test_what_is_not_finite_is_skipped(name, bad):
    """Keras makes weights NaN or takes a step of ±clipvalue."""
    x, y = helper.regression_data(32)
    y[8, 0] = bad
    limit, seen = {name: LIMITS[name]}, GradientHistory()
    actual = train({}, [GradientClipping(**limit), seen], data=(x, y))
    assert seen.applied.tolist() == [True, False, True, True]
    rest = helper.without(x, 1, 8), helper.without(y, 1, 8)
    expected = train({}, [GradientClipping(**limit)], data=rest)
    helper.assert_same(helper.state(actual), helper.state(expected), 1e-6)


def test_squares_that_overflow_are_clipped_rightly():
    """Finite gradients of 1e25: Keras's global norm is infinite, and its update 0."""
    x, y = helper.regression_data(8)
    y *= 1e25
    model, seen = helper.regression(keras.optimizers.SGD(1.0)), GradientHistory()
    before = model.get_weights()
    # The loss itself overflows in mean squares: absolute errors do not.
    model.compile(keras.optimizers.SGD(1.0), keras.losses.MeanAbsoluteError())
    x *= 1e25
    y = np.zeros_like(y)
    helper.fit(model, x, y, [GradientClipping(global_clipnorm=0.5), seen])
    moved = [b - a for a, b in zip(before, model.get_weights(), strict=True)]
    gradient = np.sign(x.astype("float64") @ before[0] + before[1]) / y.size
    gradients = [x.astype("float64").T @ gradient, gradient.sum(0)]
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    np.testing.assert_allclose(seen.global_norm, [norm], 1e-4)
    np.testing.assert_allclose(seen.clipped_norm, [0.5], 1e-4)
    for delta, gradient in zip(moved, gradients, strict=True):
        np.testing.assert_allclose(delta, -gradient * 0.5 / norm, 1e-3, 1e-6)


def test_repeated_ids_count_with_their_sum():
    """The norm of four equal rows of one id is 4, not Keras's 2."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4,), dtype="int32"),
            keras.layers.Embedding(3, 1),
            keras.layers.Flatten(),
        ]
    )

    def total(y_true, y_pred):
        return keras.ops.sum(y_pred, axis=-1) + 0 * y_true[:, 0]

    model.compile(keras.optimizers.SGD(1.0), total)
    before, seen = model.get_weights()[0], GradientHistory()
    ids, y = np.full((1, 4), 2, "int32"), np.zeros((1, 1), "float32")
    helper.fit(model, ids, y, [GradientClipping(global_clipnorm=1.0), seen])
    np.testing.assert_allclose(seen.global_norm, [4.0], 1e-6)
    expected = before - [[0.0], [0.0], [1.0]]
    np.testing.assert_allclose(model.get_weights()[0], expected, 1e-6)


def test_float16_gradients_are_clipped_by_their_true_norm():
    x, y = helper.regression_data(8)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        inputs = keras.Input((5,))
        model = keras.Model(
            inputs, keras.layers.Dense(3, dtype="mixed_float16")(inputs)
        )
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1.0), initial_scale=256.0
    )
    model.compile(optimizer, "mse")
    before, seen = model.get_weights(), GradientHistory()
    helper.fit(model, x, y, [GradientClipping(global_clipnorm=0.25), seen])
    error = (x @ before[0] + before[1] - y) * 2 / y.size
    norm = np.sqrt(np.square(x.T @ error).sum() + np.square(error.sum(0)).sum())
    np.testing.assert_allclose(seen.global_norm, [norm], 5e-3)
    moved = [b - a for a, b in zip(before, model.get_weights(), strict=True)]
    total = np.sqrt(sum(np.square(m).sum() for m in moved))
    np.testing.assert_allclose(total, 0.25, 5e-3)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({}, "exactly one"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "exactly one.*clipnorm.*clipvalue"),
        ({"clipnorm": 0}, "clipnorm.*> 0.*Received: clipnorm=0"),
        ({"clipvalue": -1.0}, "clipvalue.*> 0.*Received: clipvalue=-1.0"),
        ({"global_clipnorm": np.nan}, "global_clipnorm.*finite.*nan"),
        ({"global_clipnorm": np.inf}, "global_clipnorm.*finite.*inf"),
        ({"clipnorm": "1"}, "clipnorm.*'1'"),
        ({"clipnorm": True}, "clipnorm.*True"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        GradientClipping(**arguments)


def test_a_policy_that_is_none():
    with pytest.raises(ValueError, match=r"policy.*'clip'"):
        GradientClipping("clip")


def test_a_number_is_the_global_norm():
    assert GradientClipping(1.0).policy == ClipByGlobalNorm(1.0)
    assert GradWatch(policy=2).policy == ClipByGlobalNorm(2)


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_has_a_name(name):
    assert type(GradientClipping(name).policy) is NAMES[name]
    assert GradWatch(policy=name).policy == GradientClipping(name).policy


@pytest.mark.parametrize(
    ("policy", "error"),
    [("autoclip", ValueError), (0, ValueError), (True, TypeError), ([1], TypeError)],
)
def test_other_policies_are_refused(policy, error):
    with pytest.raises(error):
        GradientClipping(policy)
