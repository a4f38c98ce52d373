"""Healthy programs, and faults that others look like: on summaries made by hand."""

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.records.first_batch import describe_batch
from keras_gradwatch.reports.diagnosis.model import describe
from keras_gradwatch.reports.report import explain
from tests import helper
from tests.reports.test_poor import HALF, ROOM, explained, summary_of

LAYERS = keras.layers


def facts_of(*layers, loss="sparse_categorical_crossentropy", shape=(12,)):
    model = keras.Sequential([keras.Input(shape), *layers])
    model.compile("sgd", loss)
    return describe(model)


@pytest.mark.parametrize(
    ("layers", "raw"),
    [
        ([LAYERS.Flatten(), LAYERS.Dense(3)], True),
        ([LAYERS.Reshape((12, 1)), LAYERS.Conv1D(4, 3), LAYERS.Flatten()], True),
        ([LAYERS.Embedding(50, 4), LAYERS.Flatten(), LAYERS.Dense(3)], False),
        ([LAYERS.Rescaling(1 / 255), LAYERS.Dense(3)], False),
        ([LAYERS.GaussianNoise(0.1), LAYERS.Dense(3)], False),
        ([LAYERS.Dense(3, trainable=False), LAYERS.Dense(3)], False),
        ([keras.Sequential([LAYERS.Dense(3)]), LAYERS.Dense(3)], False),
    ],
)
def test_inputs_are_large_only_for_a_layer_that_reads_them(layers, raw):
    facts = facts_of(*layers)
    assert facts["scales_inputs"] is not raw
    summary = summary_of("classes", HALF, 100 * ROOM, scales_inputs=not raw)
    named = "inputs are large" in explain(summary)
    assert named == raw


def test_operations_in_front_may_scale_inputs():
    inputs = keras.Input((12,))
    model = keras.Model(inputs, LAYERS.Dense(3)(inputs / 255.0))
    model.compile("sgd", "mse")
    assert describe(model)["scales_inputs"]


STUCK = np.full(300, 2.0) + 0.01 * np.random.default_rng(0).normal(size=300)


@pytest.mark.parametrize(
    "change",
    [
        {"trained": True, "loss": "own"},
        {"loss": "own"},
    ],
)
def test_a_loss_that_need_not_fall(change):
    """That of a model that was trained before, and one of the user's own."""
    summary = summary_of("classes", STUCK)
    assert [f.kind for f in explain(summary).symptoms] == ["not learning"]
    summary.model.update(heads=[], **change)
    assert explain(summary).symptoms == []


def test_a_loss_of_ones_own_that_stands_still():
    summary = summary_of("classes", np.full(300, 1.0), heads=[])
    assert [f.kind for f in explain(summary).symptoms] == ["not learning"]


def test_the_variance_of_a_batch_is_an_estimate():
    """A regression that explains a tenth of the variance of noisy targets."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        y = rng.normal(size=(32, 1))
        losses = np.r_[np.linspace(1.4, 0.9, 100), rng.normal(0.9, 0.1, 300)]
        found += explain(summary_of("regression", losses, y=y)).symptoms
    assert len(found) < 10
    losses = np.full(400, 1.8)
    assert explain(
        summary_of("regression", losses, y=rng.normal(size=(256, 1)))
    ).symptoms


@pytest.mark.parametrize("ends", [(1e-5, 1e-3), (1e-3, 1e-5)])
def test_a_warm_up_is_not_judged(ends):
    summary = summary_of("classes", np.full(200, 2.3))
    summary.rates, summary.peak = list(ends), max(ends)
    assert bool(explain(summary).symptoms) == (ends[0] > ends[1])


def test_the_rate_of_the_event_is_advised():
    """With a warm-up, the first rate says nothing."""
    x, y = helper.digits(96)
    model = helper.compiled(helper.functional(dropout=0))
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: [1e-6, 1e4][epoch])
    watch = GradWatch(verbose=0)
    helper.fit(model, x, y, [schedule, watch], 8, epochs=2)
    assert watch.summary.event_rate == np.float32(1e4) == watch.summary.peak
    assert "1e-06 to about 1e-0" not in watch.report()


@pytest.mark.parametrize(
    ("options", "named"),
    [({}, True), ({"ignore_class": 255}, False)],
)
def test_a_class_that_is_ignored(options, named):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, **options)
    facts = facts_of(LAYERS.Dense(10, name="head"), loss=loss)
    labels = np.where(np.arange(32) % 3, np.arange(32) % 10, 255)[:, None]
    report = explained("classes", HALF / 2, y=labels, heads=facts["heads"])[2]
    assert ("labels are from" in report) == named


def test_targets_that_are_nan_and_masked():
    y = np.where(ROOM[:, :1] > 0, ROOM[:, :1], np.nan)
    summary = summary_of("regression", np.linspace(1, 0.1, 300), y=y)
    assert explain(summary).symptoms == []
    summary.first_bad = {"step": 0, "loss": np.nan, "before": None, "variables": []}
    summary.first_bad["scale"] = 0.0
    summary.outcomes["nonfinite"] = 300
    assert "of the values of the targets" in explain(summary)


@pytest.mark.parametrize(
    ("y", "weights"), [(1.0000001, None), (-1.0, np.ones(32)), (-1.0, None)]
)
def test_targets_of_a_crossentropy(y, weights):
    """Rounding is no fault, and a weight of 0 may mark what is to be ignored."""
    targets = np.linspace(0, 1, 32)[:, None]
    targets[3] = y
    data = describe_batch(
        (ROOM, targets, weights) if weights is not None else (ROOM, targets)
    )
    report = explained("binary", np.linspace(0.7, 0.3, 300), data=data)[2]
    assert ("values from 0 to 1" in report) == (y < 0 and weights is None)


def test_outputs_of_a_squared_logarithmic_error_may_be_negative():
    facts = facts_of(LAYERS.Dense(1, name="head"), loss="msle")
    losses = np.linspace(2, 0.05, 300)
    heads = facts["heads"]
    assert not explained("regression", losses, y=abs(ROOM[:, :1]), heads=heads)[0]


def test_a_small_unit_beside_the_way_is_not_narrow():
    inputs = keras.Input((6, 4))
    score = LAYERS.Softmax(axis=1)(LAYERS.Dense(1, name="score")(inputs))
    pooled = LAYERS.Flatten()(LAYERS.Dot(axes=1)([score, inputs]))
    heads = [LAYERS.Dense(1, name="age")(pooled), LAYERS.Dense(5, name="kind")(pooled)]
    assert describe(compiled(keras.Model(inputs, heads)))["narrowest"] is None
    thin = LAYERS.ReLU()(LAYERS.Dense(1, name="thin")(inputs))
    model = compiled(keras.Model(inputs, LAYERS.Dense(5)(thin)))
    assert describe(model)["narrowest"] == ["thin", 1]


def compiled(model):
    model.compile("sgd", "mse")
    return model


def test_the_shape_of_an_output_is_that_after_a_reshape():
    facts = facts_of(LAYERS.Conv1D(3, 1), LAYERS.Flatten(), shape=(7, 2))
    assert facts["heads"][0]["units"] == 21


def test_a_border_of_zeros_is_not_all_of_an_image():
    x = np.zeros((8, 300, 300, 1))
    x[:, 100:200, 100:200] = 1.0
    (known,) = describe_batch((x, None))["inputs"]
    assert not known["constant"] and known["high"] == 1.0


@pytest.mark.parametrize(("start", "kind"), [(0.0, "low rate"), (3.0, "rate")])
def test_a_kernel_that_begins_at_zero_says_nothing_of_the_rate(start, kind):
    """Its first updates are as large as itself."""
    shapes = {"head/kernel": [10, 10], "body/kernel": [10, 10]}
    summary = summary_of("classes", np.full(300, 2.3), shapes=shapes)
    small = {"weight_first": 3.0, "ratio_largest": 1e-5}
    summary.variables = {
        "head/kernel": {"weight_first": start, "ratio_largest": 1.0},
        "body/kernel": small,
    }
    kinds = [cause.kind for cause in explain(summary).causes]
    assert kinds == [kind]


@pytest.mark.parametrize("learns", [True, False])
def test_data_in_order_that_end_with_what_is_hardest(learns):
    """A series whose variance grows, without shuffling: its model has learned."""
    rng = np.random.default_rng(0)
    size = np.linspace(1, 3, 3200)[:, None]
    x = size * rng.normal(size=(3200, 4))
    y = x.sum(axis=1, keepdims=True) + 1.5 * size * rng.normal(size=(3200, 1))
    model = keras.Sequential([keras.Input((4,)), LAYERS.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01 if learns else 1e-7), "mse")
    watch = GradWatch(verbose=0)
    model.fit(x, y, epochs=2, shuffle=False, verbose=0, callbacks=[watch])
    kinds = [f.kind for f in watch.report().symptoms]
    assert watch.summary.losses()[1] > watch.summary.losses()[0]
    assert kinds == ([] if learns else ["not learning"])


@pytest.mark.parametrize("first", [[0.9, 0.5, 0.2, 0.1, 0.05], [0.6]])
def test_a_loss_that_is_0_after_a_few_steps(first):
    """A hinge loss of classes that lie far apart."""
    losses = np.r_[first, np.zeros(300)]
    summary = summary_of("classes", losses, heads=[])
    assert explain(summary).symptoms == []


def test_a_loss_below_0_that_stands_still():
    summary = summary_of("classes", np.full(300, -1.0), heads=[])
    assert [f.kind for f in explain(summary).symptoms] == ["not learning"]


@pytest.mark.parametrize(("end", "named"), [(2.3, True), (0.5, False)])
def test_what_was_learned_may_be_lost_in_the_last_epoch(end, named):
    losses = [np.geomspace(2.3, 0.5, 400), np.full(400, 0.5)]
    losses += [np.full(100, 0.5), np.full(300, end)]
    summary = summary_of("classes", np.concatenate(losses))
    summary.epoch_early, summary.epoch_end = [0.5] * 50, 0.5
    kinds = [f.kind for f in explain(summary).symptoms]
    assert kinds == (["not learning"] if named else [])


@pytest.mark.parametrize(("end", "named"), [(2.1, True), (1.6, False)])
def test_a_noisy_loss_that_has_not_fallen(end, named):
    """It falls in the first steps, and rises again; its standard error is about 3%."""
    noise = np.random.default_rng(0).normal(1, 0.2, 400)
    losses = np.r_[np.geomspace(2.3, 1.8, 20), np.full(30, 1.9), np.full(350, end)]
    summary = summary_of("classes", losses * noise)
    kinds = [f.kind for f in explain(summary).symptoms]
    assert kinds == (["not learning"] if named else [])


def test_what_was_learned_in_the_first_steps_is_kept():
    """Half of the labels are noise: the loss is near its optimum after ten steps."""
    noise = np.random.default_rng(0).normal(1, 0.05, 400)
    losses = np.r_[np.geomspace(2.3, 1.7, 10), np.full(390, 1.7)]
    summary = summary_of("classes", losses * noise)
    assert "not learning" not in [f.kind for f in explain(summary).symptoms]
