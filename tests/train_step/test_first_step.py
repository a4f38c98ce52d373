"""The first step of a real fit, against backpropagation by hand in float64."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from tests import helper

RATE = 0.05


def data(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def squares(prediction, target):
    """Loss of least squares, and its gradient."""
    error = prediction - target
    return (error**2).mean(), 2 * error / error.size


def dense():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3),
        ]
    )

    def backward(x, y, w1, b1, w2, b2):
        before = x @ w1 + b1
        hidden = np.maximum(before, 0)
        loss, d = squares(hidden @ w2 + b2, y)
        d_hidden = d @ w2.T * (before > 0)
        return loss, [x.T @ d_hidden, d_hidden.sum(0), hidden.T @ d, d.sum(0)]

    return model, data(10, 6), data(10, 3, seed=1), backward


def convolutional():
    model = keras.Sequential(
        [
            keras.Input((6, 5, 2)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )

    def backward(x, y, kernel, b1, w2, b2):
        patches = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
        before = np.einsum("nijckl,klcf->nijf", patches, kernel) + b1
        hidden = np.maximum(before, 0)
        flat = hidden.reshape(len(x), -1)
        loss, d = squares(flat @ w2 + b2, y)
        d_hidden = (d @ w2.T).reshape(hidden.shape) * (before > 0)
        d_kernel = np.einsum("nijckl,nijf->klcf", patches, d_hidden)
        return loss, [d_kernel, d_hidden.sum((0, 1, 2)), flat.T @ d, d.sum(0)]

    return model, data(4, 6, 5, 2), data(4, 2, seed=1), backward


def embedding():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(9, 4),
            keras.layers.Flatten(),
            keras.layers.Dense(1),
        ]
    )
    ids = np.array([[1, 1, 1, 2, 0], [2, 1, 8, 8, 8], [0, 0, 0, 0, 0]], "int32")

    def backward(x, y, table, w, b):
        x = x.astype(int)
        flat = table[x].reshape(len(x), -1)
        loss, d = squares(flat @ w + b, y)
        d_table = np.zeros_like(table)
        np.add.at(d_table, x, (d @ w.T).reshape(*x.shape, -1))
        return loss, [d_table, flat.T @ d, d.sum(0)]

    return model, ids, data(3, 1, seed=1), backward


def recurrent():
    model = keras.Sequential(
        [keras.Input((4, 3)), keras.layers.SimpleRNN(5), keras.layers.Dense(2)]
    )

    def backward(x, y, kernel, recurrence, bias, w, b):
        states = [np.zeros((len(x), 5))]
        for t in range(4):
            states.append(np.tanh(x[:, t] @ kernel + states[-1] @ recurrence + bias))
        loss, d = squares(states[-1] @ w + b, y)
        last = [states[-1].T @ d, d.sum(0)]
        total = [np.zeros_like(v) for v in (kernel, recurrence, bias)]
        d = d @ w.T
        for t in reversed(range(4)):
            d = d * (1 - states[t + 1] ** 2)
            total[0] += x[:, t].T @ d
            total[1] += states[t].T @ d
            total[2] += d.sum(0)
            d = d @ recurrence.T
        return loss, [*total, *last]

    return model, data(6, 4, 3), data(6, 2, seed=1), backward


def sgd_update(gradient):
    return RATE * gradient


def adam_update(gradient):
    m, v = 0.1 * gradient, 0.001 * gradient**2
    return m * (RATE * 0.001**0.5 / 0.1) / (np.sqrt(v) + 1e-7)


OPTIMIZERS = {
    "sgd": (keras.optimizers.SGD, sgd_update),
    "adam": (keras.optimizers.Adam, adam_update),
}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "callback", helper.few([GradWatch], [GradientHistory, GradWatch])
)
@pytest.mark.parametrize(
    ("make", "optimizer"),
    [
        (dense, "adam"),
        (convolutional, "sgd"),
        (embedding, "sgd"),  # Keras's Adam squares duplicate rows one by one
        (recurrent, "adam"),
    ],
)
def test_statistics_of_the_first_step(make, optimizer, callback):
    keras.utils.set_random_seed(0)
    model, x, y, backward = make()
    weights = [w.astype("float64") for w in model.get_weights()]
    weights = [w + 0.1 * data(*w.shape, seed=2) for w in weights]  # biases, too
    model.set_weights(weights)
    cls, update = OPTIMIZERS[optimizer]
    model.compile(cls(RATE), "mse")
    watching = callback(sample_freq=1)
    model.fit(x, y, batch_size=len(x), callbacks=[watching], verbose=0)
    history = watching if callback is GradientHistory else watching.history

    loss, gradients = backward(x.astype("float64"), y.astype("float64"), *weights)
    expected = {
        "norm": [np.linalg.norm(g) for g in gradients],
        "max_abs": [np.abs(g).max() for g in gradients],
        "mean": [g.mean() for g in gradients],
        "std": [g.std() for g in gradients],
        "zero_fraction": [(g == 0).mean() for g in gradients],
        "nonfinite_count": [0] * len(gradients),
        "weight_norm": [np.linalg.norm(w) for w in weights],
        "update_ratio": [
            np.linalg.norm(update(g)) / np.linalg.norm(w)
            for g, w in zip(gradients, weights, strict=True)
        ],
    }
    assert history.steps.tolist() == [0] and history.applied.tolist() == [True]
    assert history.variables == [v.path for v in model.trainable_variables]
    assert set(history.statistics) == set(expected)
    for name, values in expected.items():
        actual = history.statistics[name]
        assert actual.shape == (1, len(values))
        np.testing.assert_allclose(actual[0], values, 1e-4, 1e-7, err_msg=name)
    moved = [
        np.linalg.norm(new - old) / np.linalg.norm(old)
        for new, old in zip(model.get_weights(), weights, strict=True)
    ]
    np.testing.assert_allclose(history.statistics["update_ratio"][0], moved, 1e-4)
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    np.testing.assert_allclose(history.global_norm, [norm], 1e-4)
    np.testing.assert_allclose(history.clipped_norm, [norm], 1e-4)
    np.testing.assert_allclose(history.loss, [loss], 1e-4)


class HalfConnected(keras.layers.Layer):
    """Dense without bias, beside a weight that the outputs do not depend on."""

    def build(self, shape):
        self.unused = self.add_weight(shape=(3,), name="unused")
        self.kernel = self.add_weight(shape=(shape[-1], 2), name="kernel")

    def call(self, x):
        return x @ self.kernel


@pytest.mark.tensorflow
@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_gradient_is_not_a_zero():
    """On JAX it is one: there every gradient is."""
    model = keras.Sequential([keras.Input((3,)), HalfConnected()])
    model.compile(keras.optimizers.SGD(RATE), "mse")
    before = model.get_weights()
    history = GradientHistory()
    x, y = data(8, 3), data(8, 2, seed=1)
    model.fit(x, y, batch_size=8, callbacks=[history], verbose=0)
    unused, kernel = (v.path for v in model.trainable_variables)
    assert history.variables == [unused, kernel]
    for name, values in history.statistics.items():
        assert np.isnan(values[0, 0]), name
        assert np.isfinite(values[0, 1]), name
    error = x @ before[1] - y
    norm = np.linalg.norm(x.T @ (2 * error / error.size))
    np.testing.assert_allclose(history.global_norm, [norm], 1e-4)


def test_the_first_step_is_sampled_and_then_every_tenth():
    keras.utils.set_random_seed(0)
    model, x, y, _ = dense()
    model.compile("sgd", "mse")
    history = GradientHistory(sample_freq=10)
    x, y = np.tile(x, (3, 1))[:24], np.tile(y, (3, 1))[:24]
    model.fit(x, y, batch_size=1, callbacks=[history], verbose=0)
    sampled = ~np.isnan(history.statistics["weight_norm"]).any(axis=1)
    assert np.flatnonzero(sampled).tolist() == [0, 10, 20]
    assert not np.isnan(history.statistics["norm"]).any()


def test_the_loss_of_each_step_is_its_own():
    x, y = data(12, 3), data(12, 2, seed=1)
    y[8:] *= 100
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(1e-9), "mse")
    expected = [
        np.square(x[i : i + 4] @ model.get_weights()[0] - y[i : i + 4]).mean()
        for i in (0, 4, 8)
    ]
    history = GradientHistory()
    model.fit(x, y, batch_size=4, shuffle=False, callbacks=[history], verbose=0)
    np.testing.assert_allclose(history.loss, expected, 1e-4)


@pytest.mark.tensorflow
def test_sparse_gradients_stay_sparse():
    import tensorflow as tf

    model, x, y, _ = embedding()
    kinds = []

    class Kinds(keras.optimizers.SGD):
        def apply(self, grads, trainable_variables=None):
            kinds.extend(type(g) for g in grads)
            return super().apply(grads, trainable_variables)

    model.compile(Kinds(0.1), "mse")
    model.fit(x, y, callbacks=[GradientHistory()], verbose=0)
    assert kinds[0] is tf.IndexedSlices


@pytest.mark.tensorflow
def test_a_gradient_whose_shape_tensorflow_does_not_know():
    """That of a Dense layer after attention, where batches differ in size."""
    inputs = keras.Input((6,), dtype="int32")
    x = keras.layers.Embedding(20, 8)(inputs)
    x = x + keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.Dense(8, "relu")(x)
    outputs = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(x))
    model = helper.compiled(keras.Model(inputs, outputs))
    ids = np.random.default_rng(0).integers(0, 20, (20, 6))
    history = GradientHistory()
    helper.fit(model, ids, np.zeros(20, "int32"), [history])
    assert np.isfinite(history.statistics["norm"]).all()
