"""Regularizers that outweigh the loss: in real runs, and in numbers."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.reports.diagnosis.model import describe
from tests import helper

REGULARIZERS = {
    "strong": keras.regularizers.L2(0.1),
    "weak": keras.regularizers.L2(1e-4),
    "l1": keras.regularizers.L1(0.03),
}


class Own(keras.regularizers.Regularizer):
    l1 = l2 = None  # not the numbers of `L1` and `L2`

    def __call__(self, x):
        return 0.1 * keras.ops.max(x)


def network(regularizer, last="same"):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(24, "sigmoid", kernel_regularizer=regularizer)
    last = regularizer if last == "same" else last
    last = keras.layers.Dense(10, "softmax", kernel_regularizer=last)
    model = keras.Sequential([keras.Input((64,)), hidden, last])
    model.compile("rmsprop", "sparse_categorical_crossentropy")
    return model


@pytest.mark.parametrize("name", helper.few(["strong", "weak"], list(REGULARIZERS)))
def test_they_are_named_where_nothing_is_learned(name):
    x, y = helper.digits(640)
    model = network(REGULARIZERS[name])
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 32, epochs=20)
    report = watch.report()
    if name == "weak":
        assert not report.symptoms
        return
    assert [finding.kind for finding in report.symptoms] == ["not learning"]
    assert "the regularizers outweigh the loss" in report.verdict
    assert report.fixes[0].startswith("Divide the factors of the regularizers by 100")


def test_a_regularizer_of_one_of_two_layers():
    x, y = helper.digits(640)
    model = network(keras.regularizers.L2(1.0), last=None)
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 32, epochs=20)
    assert "the regularizers outweigh the loss" in watch.report().verdict


def test_what_they_add_to_the_loss():
    model = network(keras.regularizers.L1L2(0.01, 0.1))
    kernels = [
        np.float64(keras.ops.convert_to_numpy(layer.kernel)) for layer in model.layers
    ]
    expected = sum(0.01 * abs(k).sum() + 0.1 * (k**2).sum() for k in kernels)
    known = describe(model)
    assert known["penalty"] == pytest.approx(expected)
    assert sum(known["penalties"].values()) == pytest.approx(expected)
    assert describe(network(None))["penalty"] == 0
    assert describe(network(Own()))["penalty"] == 0
