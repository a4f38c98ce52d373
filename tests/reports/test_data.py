"""What the first batch tells is named, with the edit that mends it."""

import contextlib

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.records.first_batch import describe_batch
from tests import helper


def report_of(x, y, loss="mse", last=None, **kwargs):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, "tanh")
    last = last or keras.layers.Dense(1, name="head")
    model = keras.Sequential([keras.Input(x.shape[1:]), hidden, last])
    model.compile("sgd", loss)
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 16, **kwargs)
    return watch.report()


def data(count=160):
    x, y = helper.regression_data(count, 1)
    return x.copy(), y.copy()


def test_a_column_of_the_inputs_that_is_nan():
    x, y = data()
    x[:, 3] = np.nan
    report = report_of(x, y)
    assert [cause.kind for cause in report.causes] == ["data"]
    words = "column 3 of the inputs is NaN or infinite in every row of the first batch"
    assert words in report.splitlines()[0]
    assert report.fixes[0].startswith("Remove or fill these values")


def test_targets_that_are_nan():
    x, y = data()
    y[::4] = np.nan
    report = report_of(x, y)
    words = "25.00% of the values of the targets in the first batch are not finite"
    assert words in report


# On a CPU, TensorFlow and PyTorch refuse such labels: the line comes before the error.
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("labels", "loss", "units", "words"),
    [
        (
            range(1, 11),
            "sparse_categorical_crossentropy",
            10,
            "labels are from 1 to 10",
        ),
        ((-1, 1), "sparse_categorical_crossentropy", 10, "labels are from -1 to 1"),
        ((-1, 1), "binary_crossentropy", 1, "targets are from -1 to 1"),
    ],
)
def test_labels_that_do_not_fit(labels, loss, units, words, capsys):
    x, _ = data()
    y = np.resize(labels, (len(x), 1)).astype("int32" if units > 1 else "float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(units, "softmax")])
    if units == 1:
        model.layers[0].activation = keras.activations.sigmoid
    model.compile("sgd", loss)
    with contextlib.suppress(Exception):
        helper.fit(model, x, y, [GradWatch()], 16)
    printed = capsys.readouterr().out
    assert words in printed.splitlines()[0]
    assert "Number the classes from 0" in printed or "Encode the labels" in printed


@pytest.mark.thorough
@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
def test_targets_that_the_last_layer_cannot_give(activation):
    x, y = data()
    head = keras.layers.Dense(1, activation, name="head")
    report = report_of(x, 10 * y, "mse", head)
    assert f"the activation {activation} of the last layer `head` gives" in report
    assert report.fixes[0].startswith("Remove the activation of `head`")


def test_a_percentage_of_zero():
    x, y = data()
    y[::8] = 0
    report = report_of(x, np.abs(y), "mape")
    assert "12% of the targets are 0, and the loss mape divides by them" in report


def test_inputs_that_are_large():
    x, y = helper.digits(320)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(0.1))
    helper.fit(model, 255 * x, y, [watch := GradWatch(verbose=0)], 32)
    report = watch.report()
    assert [cause.kind for cause in report.causes] == ["inputs"]
    assert "0 to 255 in the first batch" in report
    assert "keras.layers.Normalization" in report.fixes[0]
    assert "`adapt`" in report.fixes[0]  # without it, the layer changes nothing


def test_a_healthy_run_has_no_finding():
    x, y = data()
    assert report_of(x, y, epochs=4).startswith("No explosion in 40 steps.")


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_every_batch_is_trained_on_once():
    """Looking at the first batch takes nothing from a generator."""
    x, y = data(64)
    seen = []

    def batches():
        for start in range(0, 64, 16):
            seen.append(start)
            yield x[start : start + 16], y[start : start + 16]

    runs = []
    for callbacks in ([], [GradWatch(verbose=0)]):
        seen.clear()
        model = helper.regression("adam", units=1)
        model.fit(batches(), verbose=0, shuffle=False, callbacks=callbacks)
        runs.append((model.get_weights(), list(seen)))
    helper.assert_same(*(weights for weights, _ in runs))
    assert runs[0][1] == runs[1][1]


def test_what_is_known_of_a_batch():
    x = {"a": np.float32([[1, np.nan], [3, np.nan]]), "b": np.array([["s"], ["t"]])}
    batch = describe_batch((x, np.eye(2)))
    (known,), (targets,) = batch["inputs"], batch["targets"]
    assert not batch["weighted"]
    assert known["name"] == "a" and known["bad_columns"] == [1]
    assert (known["low"], known["high"], known["nonfinite"]) == (1, 3, 0.5)
    assert known["rms"] == pytest.approx(5**0.5)
    assert targets["one_hot"] and targets["integers"] and not targets["constant"]
    assert describe_batch(object())["inputs"] == []
