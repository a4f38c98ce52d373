"""What the report says of runs: symptoms, causes, numbers, and plain data."""

import json
import re

import keras
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, make_circles

from keras_gradwatch.callbacks import (
    ExplosionError,
    GradientHistory,
    GradWatch,
    TerminateOnExplosion,
)
from keras_gradwatch.detectors import Oscillation, UpdateRatio
from keras_gradwatch.records.events import DATA_ORDER, NEW_DATA, Event
from keras_gradwatch.reports.diagnosis import RunSummary, causes, symptoms
from keras_gradwatch.reports.diagnosis.causes import clip
from keras_gradwatch.reports.diagnosis.kernels import kernels
from keras_gradwatch.reports.diagnosis.model import describe
from keras_gradwatch.reports.report import Report, explain
from keras_gradwatch.reports.table import MAX_LINES
from tests import helper


def stack(inputs, depth, width, activation, init, outputs, optimizer="sgd", loss=None):
    keras.utils.set_random_seed(0)
    hidden = [
        keras.layers.Dense(width, activation, kernel_initializer=init)
        for _ in range(depth)
    ]
    model = keras.Sequential(
        [keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)]
    )
    if loss is None:
        return helper.compiled(model, optimizer)
    model.compile(optimizer, loss)
    return model


def run(model, x, y, epochs=1, batch_size=32, **kwargs):
    watching = GradWatch(verbose=0, sample_freq=10, **kwargs)
    helper.fit(model, x, y, [watching], batch_size, epochs=epochs, shuffle=True)
    return watching


def named(watching):
    found = symptoms(watching.summary)
    kinds = [f.kind for f in found]
    return kinds, [f.kind for f in causes(watching.summary, found)]


def diabetes():
    x, y = load_diabetes(return_X_y=True)
    return (x / x.std(axis=0)).astype("float32"), y.astype("float32")


# -- Runs ------------------------------------------------------------------------------


def test_a_healthy_run():
    x, y = helper.digits(640)
    watching = run(stack(64, 2, 32, "relu", "he_normal", 10, "adam"), x, y, 3)
    assert named(watching) == ([], [])
    text = watching.report()
    assert text.startswith("No explosion in 60 steps.\nNumbers: loss ")
    assert len(text.splitlines()) == 2
    # The quantiles are those of the norms, in steps of 12%.
    norms = watching.history.global_norm
    for share in (0.5, 0.9):
        expected = np.quantile(norms, share)
        found = watching.summary.quantile(share)
        np.testing.assert_allclose(found, expected, 0.13)


@pytest.mark.thorough
def test_inputs_that_are_not_scaled():
    x, y = helper.digits(640)
    model = stack(64, 3, 64, "relu", "he_normal", 10, keras.optimizers.SGD(0.1))
    watching = run(model, 16 * x, y, 2)
    assert named(watching) == (["explosion"], ["inputs"])
    root = np.sqrt(np.mean(np.square(16 * x)))
    first = kernels(watching.summary)[0]
    assert root / 1.5 < first.inputs < root * 1.5
    first, second, third, *_ = watching.report().splitlines()
    assert first.startswith("Exploded at step") and "the inputs are large" in first
    assert second.startswith("Protected: ") and third.startswith("Fix: Scale the input")


@pytest.mark.thorough
def test_inputs_far_from_unit_size():
    x, y = load_breast_cancer(return_X_y=True)
    x = x.astype("float32")
    model = stack(30, 2, 32, "relu", "he_normal", 2, keras.optimizers.SGD(0.01))
    watching = run(model, x, y, 2)
    assert named(watching)[1][0] == "inputs"
    first = kernels(watching.summary)[0].inputs
    root = np.sqrt(np.mean(np.square(x)))
    assert root / 3 < first < root * 3


@pytest.mark.thorough
def test_targets_that_are_not_scaled():
    x, y = diabetes()
    sgd = keras.optimizers.SGD(0.01)
    watching = run(stack(10, 2, 64, "relu", "he_normal", 1, sgd, "mse"), x, y, 5)
    assert named(watching) == (["explosion"], ["targets"])
    said = re.search(r"divide by about (\S+)\)", watching.report())[1]
    np.testing.assert_allclose(float(said), np.sqrt(np.mean(np.square(y))), 0.3)


@pytest.mark.thorough
def test_weights_that_are_too_large():
    x, y = helper.digits(640)
    init = keras.initializers.RandomNormal(0.0, 1.0, seed=0)
    model = stack(64, 8, 64, "relu", init, 10, keras.optimizers.SGD(0.01))
    watching = run(model, x, y)
    assert named(watching) == (["explosion"], ["initializer"])
    # √fan_in · std of N(0, 1) at 64 inputs.
    np.testing.assert_allclose(kernels(watching.summary)[1].gain, 8.0, 0.1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "optimizer",
    helper.few([keras.optimizers.Adam], [keras.optimizers.Adam, keras.optimizers.SGD]),
)
def test_a_rate_that_is_too_high(optimizer):
    x, y = helper.digits(640)
    rate = 1.0 if optimizer is keras.optimizers.Adam else 30.0
    model = stack(64, 2, 64, "relu", "he_normal", 10, optimizer(rate))
    watching = run(model, x, y, 2)
    assert named(watching) == (["explosion"], ["rate"])
    assert watching.summary.outcomes["held"] > 0
    words = rf"Lower the learning rate from {rate:.3g} to about (\S+), or use a warm-up"
    advised = float(re.search(words, watching.report())[1])
    model = stack(64, 2, 64, "relu", "he_normal", 10, optimizer(advised))
    repaired = run(model, x, y, 6)
    assert repaired.summary.outcomes["held"] == 0 and not repaired.events
    assert np.mean(repaired.history.loss[-10:]) < 0.5 * repaired.history.loss[0]


@pytest.mark.thorough
def test_a_forward_pass_that_nothing_can_save():
    x, y = helper.digits(320)
    model = stack(64, 8, 5, "exponential", "he_uniform", 10)
    watching = run(model, 16 * x, y)
    assert named(watching)[0] == ["non-finite at the start"]
    text = watching.report()
    assert "neither a lower learning rate nor clipping can help" in text
    assert "8 layers use `exponential`" in text


@pytest.mark.thorough
def test_gradients_that_are_not_finite_though_the_loss_is():
    class Root(keras.layers.Layer):
        def call(self, x):
            return keras.ops.sqrt(x)

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), Root()])
    model.compile("sgd", "mse")
    x = np.zeros((64, 3), "float32")
    watching = run(model, x, np.ones((64, 4), "float32"), batch_size=8)
    assert named(watching)[0] == ["undefined derivative"]
    report = watching.report()
    assert f"in layer `{model.layers[-1].name}`" in report.fixes[0]
    assert "square root" in report.fixes[0]


def test_single_bad_batches():
    x, y = helper.regression_data(400)
    watching = GradWatch(verbose=0)
    helper.fit(helper.regression(), helper.with_nan(x, 7, 8), y, [watching], epochs=2)
    assert named(watching) == (["bad batches"], [])
    assert "2 of 100 steps (the first is step 7) have" in watching.report()


@pytest.mark.thorough
def test_spikes_get_a_clip_from_the_sound_steps():
    x, y = helper.regression_data(800)
    x[480:488] *= 1000  # batch 60
    watching = GradWatch(verbose=0)
    helper.fit(helper.regression(), x, y, [watching])
    assert named(watching) == (["spikes"], ["spikes"])
    norms = np.delete(watching.history.global_norm, 60)
    np.testing.assert_allclose(clip(watching.summary), np.quantile(norms, 0.9), 0.13)
    text = watching.report()
    assert f"global_clipnorm={clip(watching.summary):.2g}" in text and "Huber" in text


@pytest.mark.thorough
def test_vanishing_gradients_are_told_and_explained(capsys):
    x, y = helper.digits(640)
    model = stack(64, 10, 16, "sigmoid", "he_normal", 10, "adam")
    watching = GradWatch()
    helper.fit(model, x, y, [watching], 32, epochs=2)
    assert named(watching) == (["vanishing"], ["activation"])
    assert "10 layers use `sigmoid`" in watching.report()
    printed = capsys.readouterr().out
    assert "reported only; nothing was changed" in printed
    assert printed.count("Diagnosis (vanishing)") == 1
    # The table of a deep model is short.
    lines = watching.report().splitlines()
    assert sum("/kernel  " in line for line in lines) == MAX_LINES
    assert lines[-1] == "less affected kernels, not shown: 3"


def test_units_that_updates_have_saturated():
    """The gradient arrives at the first step, and vanishes after large updates."""
    x, y = helper.digits(1280)
    optimizer = keras.optimizers.Adam(0.1)
    model = stack(64, 6, 48, "tanh", "glorot_uniform", 10, optimizer)
    watching = run(model, x, y, 4)
    assert named(watching) == (["vanishing"], ["rate", "activation"])
    assert watching.report().fixes[0].startswith("Lower the learning rate from 0.1 to")


@pytest.mark.thorough
def test_dead_units():
    x, y = helper.digits(640)
    model = stack(64, 3, 32, "relu", "he_normal", 10, "adam")
    weights = model.get_weights()
    weights[1] -= 100.0  # the first layer says 0 to everything
    weights[3] -= 100.0
    model.set_weights(weights)
    kinds, _ = named(run(model, x, y, 3))
    assert "dead units" in kinds


@pytest.mark.thorough
def test_a_run_that_does_not_learn():
    x = np.random.default_rng(0).normal(size=(640, 8)).astype("float32")
    y = np.random.default_rng(1).integers(0, 10, 640)
    model = stack(8, 1, 4, "tanh", "glorot_uniform", 10, keras.optimizers.SGD(1e-5))
    watching = run(model, x, y, 6)
    assert named(watching)[0] == ["not learning"]
    text = watching.report()
    assert text.startswith("The loss has not fallen in 120 steps: the learning rate")


def test_a_rate_that_rises_before_the_explosion():
    x, y = helper.digits(1600)
    model = helper.compiled(helper.functional(dropout=0), keras.optimizers.SGD(0.05))
    rise = keras.callbacks.LearningRateScheduler(lambda e, _: 0.05 if e < 2 else 300.0)
    helper.fit(model, x, y, [rise, watch := GradientHistory()], 32, epochs=4)
    raised = watch.summary.raised
    assert raised["step"] == 100 and 5999 < raised["times"] < 6001
    report = watch.report()
    assert report.causes[0].words.startswith(
        "the learning rate rose from 0.05 to 300 at step 100"
    )
    assert report.fixes[0].startswith("Stay at a learning rate of 0.05")


@pytest.mark.thorough
@pytest.mark.parametrize("size", [640, 160])
def test_a_later_fit_with_other_targets(size):
    """Its losses are above those of the first one, although it learns, too."""
    x, noise = helper.regression_data(size)
    model = helper.regression(keras.optimizers.Adam(0.1))
    watch = GradWatch(verbose=0)
    for scale in (0.5, 1.0, 2.0, 4.0):
        y = scale * (noise + 3.0)
        helper.fit(model, x, y, [watch], 8)
    early, recent = watch.summary.early, watch.summary.recent
    assert np.median(recent[-10:]) > 3 * np.median(early[:10])
    assert str(watch.report()).startswith("No explosion")
    assert not watch.report().causes


@pytest.mark.thorough
def test_oscillation():
    x, y = make_circles(500, noise=0.1, random_state=1)
    sgd = keras.optimizers.SGD(8.0)
    model = stack(2, 2, 16, "tanh", "glorot_uniform", 2, sgd)
    watching = GradWatch(detector=Oscillation(), verbose=0)
    helper.fit(model, x.astype("float32"), y, [watching], len(x), epochs=100)
    kinds, _ = named(watching)
    assert kinds == ["oscillation"]
    losses = watching.history.loss
    step = watching.events[0].step
    turns = np.sign(np.diff(losses[step - 20 : step]))
    assert (turns[1:] == -turns[:-1]).all()


# -- Callbacks -------------------------------------------------------------------------


def test_the_error_of_terminate_says_why():
    x, y = helper.digits(640)
    model = stack(64, 3, 64, "relu", "he_normal", 10, keras.optimizers.SGD(3.0))
    stop = TerminateOnExplosion(UpdateRatio(), mode="raise", verbose=0)
    with pytest.raises(ExplosionError, match=r"^Exploded at step") as caught:
        helper.fit(model, 16 * x, y, [stop], 32, epochs=3)
    assert "Cause (inputs)" in str(caught.value)


# -- The summary -----------------------------------------------------------------------


@pytest.mark.thorough
def test_the_summary_is_what_the_history_says():
    x, y = helper.digits(320)
    model = stack(64, 2, 16, "relu", "he_normal", 10)
    watching = GradWatch(verbose=0, sample_freq=1)
    helper.fit(model, x, y, [watching], 8, epochs=3)
    history, summary = watching.history, watching.summary
    assert summary.steps == len(history.steps) == 120
    np.testing.assert_allclose(summary.early, history.loss[:50])
    np.testing.assert_allclose(summary.recent, history.loss[-50:])
    assert summary.norm == {
        "first": history.global_norm[0],
        "last": history.global_norm[-1],
        "largest": history.global_norm.max(),
    }
    assert list(summary.variables) == history.variables
    for i, numbers in enumerate(summary.variables.values()):
        norms = history.statistics["norm"][:, i]
        assert numbers["norm_first"] == norms[0]
        assert numbers["norm_last"] == norms[-1]
        assert numbers["norm_largest"] == norms.max()
        assert numbers["largest_step"] == norms.argmax()
        assert numbers["zeros_last"] == history.statistics["zero_fraction"][-1, i]
        assert numbers["weight_first"] == history.statistics["weight_norm"][0, i]
        ratios = history.statistics["update_ratio"][:, i]
        assert numbers["ratio_largest"] == ratios[np.isfinite(ratios)].max()


@pytest.mark.thorough
def test_the_summary_does_not_grow():
    x, y = helper.regression_data(64)
    watching = GradWatch(verbose=0)
    model = helper.regression()
    helper.fit(model, x, y, [watching], epochs=10)
    size = len(json.dumps(watching.summary.to_dict()))
    helper.fit(model, x, y, [watching], epochs=40)
    assert watching.summary.steps == 400
    assert len(json.dumps(watching.summary.to_dict())) < size + 500


@pytest.mark.thorough
def test_a_summary_belongs_to_one_model():
    x, y = helper.regression_data(24)
    watching = GradWatch(verbose=0)
    helper.fit(helper.regression(), x, y, [watching])
    helper.fit(helper.regression(), x, y, [watching])
    assert watching.summary.steps == 3


def test_what_is_known_of_a_model():
    inputs = keras.Input((4,))
    inner = keras.Sequential([keras.layers.Dense(3, "tanh"), keras.layers.ReLU()])
    hidden = keras.layers.LayerNormalization()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", name="head")(hidden))
    model.compile("sgd", keras.losses.MeanSquaredError())
    known = describe(model)
    # The sigmoid is what the loss asks for.
    assert known["activations"] == {"tanh": 1, "relu": 1}
    assert known["regression"]
    assert known["loss"] == "MeanSquaredError"
    assert known["shapes"]["head/kernel"] == [3, 1]
    model.compile("sgd", "binary_crossentropy")
    assert describe(model)["regression"] is False
    # With a loss scale, the optimizer that is scaled.
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, 0.9))
    model.compile(scaled, "mse")
    known = describe(model)
    assert (known["optimizer"], known["momentum"]) == ("SGD", 0.9)


def test_nothing_was_watched():
    assert GradWatch().report().startswith("Nothing has been watched yet")
    assert explain(RunSummary()) == "No explosion in 0 steps."


def test_the_report_is_text_and_data():
    x, y = helper.digits(640)
    model = stack(64, 2, 64, "relu", "he_normal", 10, keras.optimizers.Adam(1.0))
    report = run(model, x, y, 2).report()
    assert isinstance(report, Report) and report.startswith(report.verdict)
    assert report.exploded and report.protected
    assert [cause.kind for cause in report.causes] == ["rate"]
    assert f"Fix: {report.fixes[0]}" in report and len(report.fixes) <= 3
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["verdict"] == report.verdict
    assert data["summary"]["steps"] == 40
    page = report._repr_html_()
    assert report.verdict.splitlines()[0] in page and "white-space" in page


@pytest.mark.thorough
def test_the_most_affected_kernel_comes_first():
    x, y = helper.digits(640)
    model = stack(64, 10, 16, "relu", "he_normal", 10, keras.optimizers.Adam(1.0))
    watching = run(model, x, y)
    lines = watching.report().splitlines()
    head = next(i for i, line in enumerate(lines) if "norm: first" in line)
    assert lines[head + 1].startswith(watching.events[0].variable)


def summed_up(*events, steps=400):
    """A summary of a run with events: pairs of a kind and what else is known."""
    summary = RunSummary(steps=steps)
    usual = {"variable": None, "value": 30.0, "baseline": 1.0, "action": "skipped"}
    summary.add(
        [
            Event(**{"step": 100 + i, "kind": kind, "message": kind, **usual, **known})
            for i, (kind, known) in enumerate(events)
        ]
    )
    return summary


def test_a_small_spike_is_no_explosion():
    """As the last batch of an epoch may be, which has a few rows."""
    report = explain(summed_up(("norm spike", {}), ("loss spike", {"step": 100})))
    assert not report.exploded and not report.symptoms
    assert "1 of 400 steps had an event" in report.verdict
    assert "1 update skipped" in report.verdict
    large = explain(summed_up(("norm spike", {"value": 1e4})))
    assert not large.exploded and named(large) == (["spikes"], ["spikes"])
    assert "1 of 400 steps had a norm spike" in large.verdict
    assert explain(summed_up(*[("norm spike", {})] * 9)).exploded


def test_a_loss_on_another_scale_is_no_explosion():
    spikes = [("loss spike", {"value": 1e4})] * 5
    known = {"action": "observed", "value": 1e3}
    shift = ("divergence", {**known, "cause": NEW_DATA})
    report = explain(summed_up(*spikes, shift))
    assert not report.exploded
    assert [finding.kind for finding in report.symptoms] == ["shift"]
    assert "changed before step 105" in report
    order = ("divergence", {**known, "cause": DATA_ORDER})
    assert "Shuffle the data" in explain(summed_up(*spikes, order)).fixes[0]
    assert explain(summed_up(*spikes, ("divergence", known))).exploded
    assert explain(summed_up(*spikes, ("divergence", {"action": "rewound"}))).exploded


def test_a_batch_with_nothing_to_learn_has_no_dead_units():
    shapes = {"a/kernel": [4, 8], "a/bias": [8], "b/kernel": [8, 2], "b/bias": [2]}

    def report(last):
        summary = RunSummary({"shapes": shapes}, steps=400)
        zeros = {"zeros_last": 1.0, "norm_largest": 1.0}
        summary.variables = {name: dict(zeros) for name in shapes}
        summary.variables["b/bias"]["zeros_last"] = last
        return [finding.kind for finding in explain(summary).symptoms]

    assert report(0.0) == ["dead units"] and report(1.0) == []


def test_a_lasting_shift_is_no_matter_of_a_few_spikes():
    """It trips `patience` times, and the loss stays up."""
    summary = summed_up(*[("loss spike", {"value": 1e5})] * 5)
    assert explain(summary).exploded
    few = summed_up(*[("loss spike", {"value": 1e5})] * 3)
    assert not explain(few).exploded
    few.early, few.recent = [0.1] * 50, [9e4] * 50
    assert explain(few).exploded
