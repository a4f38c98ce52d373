"""Where a forward pass stops being finite."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from keras import ops

import keras_gradwatch
from keras_gradwatch.backends.batch import flat, nested
from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.reports.forward_pass import compute
from keras_gradwatch.tensors.reading import read
from tests import helper


class Logarithm(keras.layers.Layer):
    """Not finite where a sum is not positive."""

    def call(self, x):
        return ops.log(ops.sum(x, axis=-1, keepdims=True))


class Block(keras.layers.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.inner = [keras.layers.Dense(4), Logarithm(name="logarithm")]

    def call(self, x):
        for layer in self.inner:
            x = layer(x)
        return x


class Masked(keras.layers.Layer):
    """A softmax of one value of each row, or of `none` at all."""

    def __init__(self, none=False):
        super().__init__(name="masked")
        self.none = none

    def call(self, x):
        largest = ops.max(x, axis=-1, keepdims=True)
        mask = ops.where(x <= largest if self.none else x < largest, -np.inf, 0.0)
        return ops.softmax(x + mask)


class Guarded(keras.layers.Layer):
    """Takes logarithms of all values, and returns those of positive ones."""

    def __init__(self, penalty=False):
        super().__init__(name="guarded")
        self.penalty = penalty

    def call(self, x):
        logarithm = ops.log(x)
        if self.penalty:
            self.add_loss(ops.mean(logarithm))
        return ops.where(x > 0, logarithm, 0.0)


class Scaled(keras.layers.Layer):
    """Has a weight of a type that NumPy cannot read from PyTorch."""

    def build(self, shape):
        self.scale = self.add_weight(
            shape=(), initializer="ones", dtype="float8_e4m3fn", trainable=False
        )

    def call(self, x):
        return x * ops.cast(self.scale, x.dtype)


def root(targets, outputs):
    return ops.mean(ops.sqrt(outputs - targets))


def model_of(*layers, loss="mse"):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((5,)), *layers, keras.layers.Dense(3)])
    model.compile("sgd", loss)
    return model


@pytest.fixture
def data():
    return helper.regression_data(32)


def test_an_operation_within_nested_layers(data):
    found = keras_gradwatch.trace_forward(model_of(Block()), *data)
    first = found.first_nonfinite
    assert (first.name, first.kind, first.within) == ("log", "operation", "logarithm")
    assert first.inputs[0] <= 0 and 0 < first.nonfinite < 1
    assert str(found).startswith(
        "the first non-finite values come from `ops.log` in `logarithm`, "
        "called with values from -"
    )


def test_a_node_of_a_functional_model(data):
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(3)(ops.sqrt(inputs)))
    found = keras_gradwatch.trace_forward(model, data[0])
    assert found.first_nonfinite.place.startswith("`ops.sqrt")
    low, high = found.first_nonfinite.inputs
    np.testing.assert_allclose([low, high], [data[0].min(), data[0].max()], rtol=1e-6)


def test_a_loss(data):
    found = keras_gradwatch.trace_forward(model_of(loss=root), *data)
    assert found.first_nonfinite.place == "`ops.sqrt` in `root`"
    assert keras_gradwatch.trace_forward(model_of(loss=root), data[0]).outputs


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (Masked(), "`ops.sqrt` in `root`"),
        (Guarded(), "`ops.sqrt` in `root`"),
        (Masked(none=True), "`ops.softmax` in `masked`"),
        (Guarded(penalty=True), "`ops.log` in `guarded`"),
    ],
)
def test_values_that_do_not_leave_a_layer(data, layer, place):
    model = model_of(layer, loss=root)
    for part in ({}, {"first_only": True}):
        found = compute(model, [(v, read(v)) for v in model.variables], *data, **part)
        assert found.first_nonfinite.place == place
    if layer.name == "masked" and not layer.none:
        words = str(keras_gradwatch.trace_forward(model, data[0]))
        assert words.startswith("all outputs of the model are finite")


def test_memory_and_time():
    """One activation is read at a time, and no more than needed."""
    x = np.zeros((1000, 1000), "float32")
    inputs = keras.Input((1000,))
    model = keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs))
    tracemalloc.start()
    keras_gradwatch.trace_forward(model, x)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * x.nbytes

    model = model_of(Block())
    x, y = helper.regression_data(32)
    values = [(v, read(v)) for v in model.variables]
    found = compute(model, values, x, y, first_only=True)
    assert [o.name for o in found.outputs[-3:]] == ["logarithm", "block", model.name]


def test_inputs(data):
    x, y = data
    x[3, 2] = np.inf
    found = keras_gradwatch.trace_forward(model_of(), x, y)
    assert str(found).endswith("are in `x` (0.62% of its values)")


def test_the_largest_value(data):
    x, _ = data
    model = model_of(keras.layers.Rescaling(1e6, name="rescaling"))
    found = keras_gradwatch.trace_forward(model, x)
    largest = max(np.abs(model.predict(x, verbose=0)).max(), 1e6 * np.abs(x).max())
    np.testing.assert_allclose(found.largest.largest, largest, rtol=1e-5)
    assert found.first_nonfinite is None and "all outputs are finite" in str(found)


def test_nothing_changes(data):
    model = model_of(
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.ActivityRegularization(0.1),
    )
    before = helper.values(model.variables)
    keras_gradwatch.trace_forward(model, *data)
    helper.assert_same(helper.values(model.variables), before, None)
    assert not [float(m.result()) for m in model.metrics if float(m.result())]
    call = keras.layers.Layer.__call__
    assert call.__module__.startswith("keras") and ops.log(1.0) == 0.0


def test_a_model_that_is_not_built():
    model = keras.Sequential([keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="`model` must be built"):
        keras_gradwatch.trace_forward(model, np.zeros((2, 5)))


def test_the_report_of_a_first_step(data):
    model = model_of(Block())
    helper.fit(model, *data, [watch := GradWatch(verbose=0)], 8)
    report = watch.report()
    assert "come from `ops.log` in `logarithm`, called with values from" in str(report)
    assert report.fixes[0].startswith("Keep the argument of `ops.log` in `logarithm`")


def test_the_report_of_several_outputs(data):
    """On JAX, Keras has taken the values of the metrics that their loss updates."""
    x, y = data
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    outputs = [keras.layers.Dense(3)(inputs), keras.layers.Dense(3)(Block()(inputs))]
    model = keras.Model(inputs, outputs)
    model.compile("sgd", ["mse", "mse"])
    helper.fit(model, x, [y, y], [watch := GradWatch(verbose=0)], 8)
    assert "come from `ops.log` in `logarithm`" in str(watch.report())


@pytest.mark.torch
def test_a_variable_that_numpy_has_no_type_for(tmp_path, data):
    model = model_of(Scaled(), Block())
    watch = GradWatch(tmp_path, save_batch=1_000_000, verbose=0)
    helper.fit(model, *data, [watch], 8)
    (path,) = tmp_path.glob("gradwatch/events/*/event.json")
    weights = json.loads((path.parent / "weights.json").read_text())["weights"]
    assert all("norm" in weight for weight in weights)
    assert "forward_pass" in json.loads(path.read_text())
    assert "`ops.log`" in str(watch.report())


def test_two_reports_of_one_fit_say_the_same(data):
    model, watch = model_of(Block()), GradWatch(verbose=0)
    helper.fit(model, *data, [watch, history := GradWatch(verbose=0)], 8)
    for callback in (watch, history):
        assert "`ops.log` in `logarithm`" in str(callback.report())
    assert model.gradwatch.first_data is None


def test_the_batch_of_a_later_step(tmp_path, data):
    x, y = np.abs(data[0]) + 0.1, data[1]
    x[17] *= -1
    model = model_of(Logarithm(name="logarithm"))
    watch = GradWatch(tmp_path, save_batch=1_000_000, verbose=0)
    helper.fit(model, x, y, [watch], 8)
    (path,) = tmp_path.glob("gradwatch/events/*/event.json")
    content = json.loads(path.read_text())
    assert content["step"] == 2 and content["forward_pass"] in str(watch.report())
    assert "`ops.log` in `logarithm`" in content["forward_pass"]


def test_healthy_runs_and_observers_that_see_too_late(data):
    """The batch is not kept any longer, and weights that are NaN tell nothing."""
    for layers, watch in (([], GradWatch(verbose=0)), ([Block()], GradientHistory())):
        model = model_of(*layers)
        helper.fit(model, *data, [watch], 8)
        assert not watch.summary.first_bad.get("forward")
        assert model.gradwatch.first_data is None


def test_a_batch_from_its_names():
    for batch in (
        (np.ones(2), np.zeros(3)),
        ({"image": np.ones(2), "text": (np.ones(1), np.ones(2))}, np.zeros(3)),
        np.ones(2),
    ):
        again = nested(dict(flat(batch)))
        keras.tree.assert_same_structure(batch, again)
