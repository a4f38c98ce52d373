"""The variable that is named, and the loss scale."""

import math

from keras_gradwatch.detectors import NonFinite, Verdict
from tests.detectors.observations import observation


def test_it_names_the_worst_variable():
    step = observation(
        global_norm=math.nan, finite=False, nonfinite_count=[0, 2, 3, math.nan, 0, 0]
    )
    verdict = NonFinite().observe(step, {})
    assert verdict == Verdict(2, 3.0, 0.0)
    words = NonFinite().describe("dense/bias", verdict.value, verdict.baseline)
    assert words == "3 non-finite gradient values in dense/bias"
    assert (
        NonFinite().describe("w", 1.0, 8.0).endswith("value in w at a loss scale of 8")
    )


def test_a_loss_that_is_not_finite():
    step = observation(loss=math.inf, finite=False, nonfinite_count=[0] * 6)
    assert NonFinite().observe(step, {}) == Verdict(None, math.inf, 0.0)
    told = NonFinite().describe(None, math.inf, 0.0)
    assert told == "the loss is inf, but every gradient is finite"


def test_the_loss_scale_is_the_baseline():
    step = observation(finite=False, nonfinite_count=[1] * 6, loss_scale=1024.0)
    assert NonFinite().observe(step, {}) == Verdict(0, 1.0, 1024.0)


def test_a_finite_step():
    assert NonFinite().observe(observation(), {}) is None
    assert NonFinite().limits({}) == {}
