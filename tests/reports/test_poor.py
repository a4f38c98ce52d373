"""Runs that learn little, and facts that explain a run: on summaries made by hand."""

import keras
import numpy as np
import pytest

from keras_gradwatch.keras_hooks.metrics import metric_names
from keras_gradwatch.records.first_batch import describe_batch
from keras_gradwatch.reports.diagnosis import RunSummary
from keras_gradwatch.reports.diagnosis.data import certain, large_targets
from keras_gradwatch.reports.diagnosis.model import describe
from keras_gradwatch.reports.report import explain

ROOM = np.random.default_rng(0).normal(size=(32, 4))
HEADS = {
    "classes": (10, "softmax", "sparse_categorical_crossentropy"),
    "binary": (1, "sigmoid", "binary_crossentropy"),
    "regression": (1, "linear", "mse"),
}


def summary_of(family, losses, x=ROOM, y=None, **model):
    """The summary of a run with these losses, and no event."""
    units, activation, loss = HEADS[family]
    head = {"layer": "head", "activation": activation, "units": units, "loss": loss}
    y = np.arange(32.0)[:, None] % max(units, 2) if y is None else y
    facts = {
        "heads": [{**head, "family": family, "from_logits": False}],
        "data": describe_batch((x, y)),
        "loss": loss,
        **model,
    }
    losses = [float(loss) for loss in losses]
    return RunSummary(
        model=facts,
        steps=len(losses),
        first_step=0,
        rates=[0.01, 0.01],
        early=losses[:50],
        recent=losses[-50:],
    )


def explained(*args, **model):
    report = explain(summary_of(*args, **model))
    return [f.kind for f in report.symptoms], [f.kind for f in report.causes], report


HALF = np.linspace(2.3, 1.8, 300)  # of ten classes: little, and not nothing


@pytest.mark.parametrize(
    ("model", "cause", "fix"),
    [
        ({"narrowest": ["dense", 1]}, "structure", "Give `dense` at least 20 units"),
        ({"dropout": 0.9}, "settings", "Use a dropout rate of at most 0.5"),
        ({"momentum": 0.999}, "rate", "Use a momentum of 0.9"),
        ({"recurrent": ["lstm", "relu"]}, "activation", "Use the default `tanh`"),
    ],
)
def test_little_is_learned_for_a_reason(model, cause, fix):
    kinds, causes, report = explained("classes", HALF, **model)
    assert kinds == ["learns poorly"] and causes == [cause]
    assert fix in report.fixes[0]
    assert explained("classes", HALF)[0] == []  # no reason in sight
    assert explained("classes", HALF / 4, **model)[0] == []  # much is learned


def test_recurrent_weights_that_are_too_large():
    name = "lstm/lstm_cell/recurrent_kernel"
    summary = summary_of("classes", HALF, shapes={name: [16, 64]})
    for gain, kinds in ((2.0, ["learns poorly"]), (1.0, [])):
        norm = gain / np.sqrt(16) * np.sqrt(16 * 64)
        summary.variables = {name: {"weight_first": float(norm)}}
        report = explain(summary)
        assert [finding.kind for finding in report.symptoms] == kinds
    assert "recurrent" not in explain(summary)


def test_weights_that_made_the_first_outputs_too_large():
    """A run of eight times He's weights may come down to guessing without an event."""
    name, losses = "dense/kernel", [2000.0] * 20 + [2.0] * 280
    summary = summary_of("classes", losses, shapes={name: [64, 10]})
    for gain, kinds in ((12.0, ["learns poorly"]), (1.4, [])):
        summary.variables = {name: {"weight_first": gain * np.sqrt(10.0)}}
        report = explain(summary)
        assert [finding.kind for finding in report.symptoms] == kinds
    summary.variables = {name: {"weight_first": 12 * np.sqrt(10.0)}}
    report = explain(summary)
    assert [finding.kind for finding in report.causes] == ["initializer"]
    assert "√fan_in · std is 12 in dense/kernel" in report
    summary.early = [2.3] * 50  # a normalization makes up for them
    assert not explain(summary).symptoms


def test_a_rate_that_falls_too_soon():
    summary = summary_of("classes", np.linspace(2.3, 2.19, 300))
    summary.rates, summary.slow = [0.1, 0.0], 200
    report = explain(summary)
    assert [finding.kind for finding in report.causes] == ["low rate"]
    assert "in 200 of 300 steps it was below 1% of its initial value" in report
    summary.slow = 50  # as at the end of a schedule
    assert not explain(summary).symptoms


def test_a_model_that_has_learned_before():
    assert explained("classes", np.full(300, 0.3))[0] == []
    assert explained("classes", np.full(300, 2.0))[0] == ["not learning"]


def test_batches_of_one_row():
    """Batch normalization subtracts the row from itself."""
    for rows, kinds in ((1, ["data"]), (2, [])):
        summary = summary_of("classes", HALF / 2, ROOM[:rows], np.zeros((rows, 1)))
        summary.model["normalizes_batch"] = "norm"
        report = explain(summary)
        assert [finding.kind for finding in report.symptoms] == kinds


def test_label_sequences_that_are_too_long():
    y = np.array([[1, 2, 2, 0], [3, 1, 0, 0]])  # a 2, a blank, a 2
    for steps, kinds in ((3, ["labels"]), (4, [])):
        summary = summary_of("classes", HALF / 2, y=y)
        summary.model["heads"][0] |= {"loss": "ctc", "family": None, "steps": steps}
        report = explain(summary)
        assert [finding.kind for finding in report.symptoms] == kinds
    assert describe_batch((ROOM, y))["targets"][0]["frames"] == 4


@pytest.mark.parametrize("names", [("price", "kind"), ("kind", "price")])
def test_targets_belong_to_outputs_by_name(names):
    """Whatever the order in which a dict has them."""
    inputs = keras.Input((4,))
    outputs = {
        "price": keras.layers.Dense(1, name="price")(inputs),
        "kind": keras.layers.Dense(1, "sigmoid", name="kind")(inputs),
    }
    model = keras.Model(inputs, list(outputs.values()))
    model.compile("sgd", {"price": "mse", "kind": "binary_crossentropy"})
    targets = {"price": 1e3 + np.ones((32, 1)), "kind": np.arange(32.0)[:, None] % 2}
    summary = summary_of("regression", HALF)
    for kind, fits in ((targets["kind"], True), (5 + targets["kind"], False)):
        y = {name: {**targets, "kind": kind}[name] for name in names}
        summary.model = {**describe(model), "data": describe_batch((ROOM, y))}
        found = certain(summary)
        assert [f.kind for f in found] == ([] if fits else ["labels"])
        assert large_targets(summary).words.startswith("the targets `price` are large")


def test_a_subclassed_model_has_no_linear_stack():
    """Where layers do not tell what feeds them, nothing is claimed."""

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = [keras.layers.Dense(4, "relu"), keras.layers.Dense(1)]

        def call(self, x):
            return self.inner[1](self.inner[0](x))

    model = Model()
    model.compile("sgd", "mse")
    model(ROOM)
    assert not describe(model)["linear_stack"]


def test_bad_batches_among_as_many_good_ones():
    summary = summary_of("classes", HALF / 2)
    event = {"step": 0, "value": 1.0, "baseline": 0.0, "variable": None}
    event |= {"kind": "nonfinite", "action": "skipped", "message": ""}
    summary.outcomes["nonfinite"] = 90  # of 300
    summary.first_bad = {"step": 0, "loss": np.nan, "before": None, "scale": 0.0}
    summary.first_bad["variables"] = ["dense/kernel"]
    summary.first_event = event
    for last, kind in ((290, "bad batches"), (100, "non-finite at the start")):
        events = {"count": 90, "first": event, "last": {**event, "step": last}}
        summary.kinds = {"nonfinite": events}
        assert explain(summary).symptoms[0].kind == kind


def test_what_is_described_of_a_model():
    layers = keras.layers
    model = keras.Sequential([keras.Input((6, 3))])
    model.add(layers.Bidirectional(layers.LSTM(4, activation="relu"), name="rnn"))
    model.add(layers.BatchNormalization(name="norm"))
    model.add(layers.Dense(2))
    model.compile("sgd", "mse")
    found = describe(model)
    assert found["recurrent"] == ["rnn", "relu"]
    assert found["normalizes_batch"] == "norm"
    model.get_layer("norm").trainable = False
    assert describe(model)["normalizes_batch"] is None


def test_inputs_that_cost_most_of_what_could_be_learned():
    kinds, causes, _ = explained("classes", HALF, 100 * ROOM)
    assert (kinds, causes) == (["learns poorly"], ["inputs"])


def test_a_dry_run_is_short_by_choice():
    losses = np.linspace(2.3, 2.15, 100)
    assert explained("classes", losses)[1] == ["too few steps"]
    assert explained("classes", losses, dry_run=True)[0] == []


def test_a_run_that_ends_too_early():
    kinds, causes, report = explained("binary", np.linspace(0.7, 0.66, 30))
    assert (kinds, causes) == (["learns poorly"], ["too few steps"])
    assert report.fixes[0] == "Train for 10 times as many epochs."
    assert explained("binary", np.linspace(0.7, 0.5, 30))[0] == []


def test_a_loss_far_above_that_of_a_constant_answer():
    y = np.random.default_rng(0).normal(size=(32, 1))
    large = {"shapes": {}, "regression": True}
    assert explained("regression", np.geomspace(9e3, 400, 200), y=y, **large)[0] == [
        "not learning"
    ]
    assert explained("regression", np.geomspace(9e3, 0.1, 200), y=y, **large)[0] == []


def test_equal_targets():
    y = np.full((32, 1), 3.0)
    kinds, _, report = explained("regression", np.geomspace(9, 1e-5, 300), y=y)
    assert kinds == ["data"] and "all targets of the first batch are 3" in report
    assert explained("regression", np.geomspace(9, 0.3, 300), y=y)[0] == []
    # Ten rows may be equal by chance.
    assert explained("regression", np.geomspace(9, 1e-5, 300), y=y[:10])[0] == []


def test_equal_classes_and_a_rare_class():
    y, losses = np.zeros((32, 1)), np.geomspace(2.3, 0.02, 300)
    assert explained("classes", losses, y=y)[0] == ["data"]
    losses[-20] = 4.0  # a batch with another class
    assert explained("classes", losses, y=y)[0] == []


def test_equal_inputs():
    ones, losses = np.ones((32, 4)), np.linspace(2.3, 1.0, 300)
    kinds, _, report = explained("classes", losses, x=ones)
    assert kinds == ["data"] and "all inputs of the first batch are 1" in report
    assert explained("classes", losses)[0] == []
    # A loss of the user's own may not read its inputs.
    assert explained("classes", losses, x=ones, heads=[])[0] == []


def test_one_unit_before_several_classes():
    losses = np.geomspace(2.3, 1.0, 300)
    assert explained("classes", losses, narrowest=["thin", 1])[0] == ["learns poorly"]
    assert explained("classes", losses)[0] == []
    losses = np.geomspace(2.3, 0.3, 300)
    assert explained("classes", losses, narrowest=["thin", 1])[0] == []


def test_class_numbers_under_a_squared_error():
    y, losses = np.arange(32.0)[:, None] % 10, np.linspace(8, 1, 200)
    kinds, _, report = explained("regression", losses, y=y, metrics=["accuracy"])
    assert kinds == ["settings"] and "`head` 10 units" in report.fixes[0]
    assert explained("regression", losses, y=y, metrics=["mae"])[0] == []
    assert explained("regression", losses, y=y + 0.5, metrics=["accuracy"])[0] == []


def test_a_model_that_is_frozen():
    kinds, _, report = explained("classes", HALF, trainable=0)
    assert kinds == ["no gradient"] and "`layer.trainable = True`" in report.fixes[0]


def test_values_beyond_float16():
    summary = summary_of("regression", [9e5] * 60, y=1e3 * ROOM[:, :1], dtype="float16")
    summary.first_bad = {
        "step": 5,
        "loss": float("inf"),
        "before": 1.0,
        "variables": ["dense/kernel"],
        "scale": 0.0,
    }
    summary.outcomes["nonfinite"] = 55
    assert explain(summary).symptoms[0].kind == "float16 overflow"
    summary.model["dtype"] = "float32"
    assert explain(summary).symptoms[0].kind != "float16 overflow"


def test_biases_that_switch_units_off():
    _, causes, report = explained("classes", np.full(300, 2.3), bias=-10.0)
    assert causes == ["initializer"] and "biases of 0" in report.fixes[0]


def test_what_is_known_of_a_functional_model():
    inputs = keras.Input((4,))
    bias = keras.initializers.Constant(-5.0)
    hidden = keras.layers.Dense(1, name="thin", bias_initializer=bias)(inputs)
    hidden = keras.layers.Dropout(0.1)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax")(hidden))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["acc", "mse"])
    known = describe(model)
    assert known["linear_stack"] and known["narrowest"] == ["thin", 1]
    assert known["bias"] == -5.0 and known["trainable"] == 4
    assert metric_names(model) == ["accuracy", "mse"] == known["metrics"]
    model.trainable = False
    assert describe(model)["trainable"] == 0
    model.layers[1].activation = keras.activations.relu
    assert not describe(model)["linear_stack"]


def test_what_is_known_of_a_column():
    x = np.ones((20, 3))
    x[:, 1] = 500.0
    (known,) = describe_batch((x, None))["inputs"]
    assert known["column"] == [1, 500.0] and known["rows"] == 20
    assert known["distinct"] == 2
    large = ROOM * [1, 1, 1000, 1]
    assert "nearly all of it from column 2" in explained("classes", HALF, large)[2]
    assert "column" not in explained("classes", HALF, 100 * ROOM)[2]
