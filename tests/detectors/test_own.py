"""A detector of one's own, and the checks of what its methods return."""

import inspect
import math
import re

import numpy as np
import pytest

import keras_gradwatch.detectors
from keras_gradwatch.detectors import Detector, Verdict
from keras_gradwatch.detectors.checks import checked_limits, checked_observe
from tests.detectors.observations import Watch, observation


class Jump(Detector):
    kind = "jump"

    def initial_state(self, num_variables):
        return {"last": 1e30}

    def limits(self, state):
        return {"global_norm": (0.0, 10 * state["last"])}

    def observe(self, step, state):
        verdict = super().observe(step, state)
        state["last"] = step.global_norm
        return verdict


@pytest.mark.parametrize("every", [None, 1])
def test_ten_times_the_last_norm(every):
    watch = Watch(Jump(), every)
    watch.sequence("global_norm", [1e6, 1.0, 9.0, 80.0, 900.0, 800.0, 1.0, 11.0])
    assert watch.tripped == [4, 7]
    assert watch.verdict == Verdict(None, 11.0, 10.0)
    assert watch.detector.describe(None, 11.0, 10.0) == "jump: 11, compared with 10"


def test_the_example_of_the_documentation_is_this_one():
    example = re.search(r"```python\n(.*?)```", inspect.getdoc(Detector), re.DOTALL)[1]
    scope = {"keras_gradwatch": keras_gradwatch}
    exec(example, scope)
    watch = Watch(Jump())
    watch.detector = scope["Jump"]()
    watch.state = watch.detector.initial_state(6)
    values = [1e6, 1.0, 9.0, 80.0, 900.0, 800.0]
    assert watch.sequence("global_norm", values) == [4]


class Own(Detector):
    """One whose answers are given."""

    def __init__(self, answer):
        self.answer = answer

    def get_config(self):
        return {"answer": self.answer}

    def limits(self, state):
        return self.answer

    def observe(self, step, state):
        return self.answer


def test_a_detector_that_overrides_nothing_never_trips():
    watch = Watch(Detector(), every=1)
    watch(9, global_norm=1e30)
    assert watch.tripped == [] and Detector().limits({}) == {}


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, {}),
        ({"loss": (0, 3)}, {"loss": (0.0, 3.0)}),
        ({"loss": [-math.inf, math.inf]}, {"loss": (-math.inf, math.inf)}),
        # As the compiled step compares: in float32.
        ({"global_norm": (0.1, np.float64(0.7))}, None),
        ({"update_ratio": (0.0, 1e300)}, {"update_ratio": (0.0, math.inf)}),
    ],
)
def test_limits(limits, expected):
    if expected is None:
        expected = {n: tuple(map(np.float32, pair)) for n, pair in limits.items()}
    found = checked_limits(Own(limits), {})
    assert found == expected
    assert {type(v) for pair in found.values() for v in pair} <= {float}


RULE = (
    r"Own.limits\(\) must return a dict of global_norm, loss or update_ratio to a pair "
    r"\(low, high\) with low <= high, neither of them NaN"
)


@pytest.mark.parametrize(
    ("limits", "error", "match"),
    [
        (None, TypeError, rf"{RULE}. Received: None"),
        ((0.0, 1.0), TypeError, rf"{RULE}. Received: \(0.0, 1.0\)"),
        ({"norm": (0.0, 1.0)}, ValueError, rf"{RULE}. Received: .*'norm'"),
        ({"loss": 1.0}, ValueError, rf"{RULE}. Received: .*1.0"),
        ({"loss": (0.0, 1.0, 2.0)}, ValueError, RULE),
        ({"loss": (0.0, "1")}, ValueError, RULE),
        ({"loss": (False, True)}, ValueError, RULE),
        ({"loss": (0.0, math.nan)}, ValueError, rf"{RULE}.*nan"),
        ({"loss": (2.0, 1.0)}, ValueError, rf"{RULE}. Received.*2.0, 1"),
    ],
)
def test_bad_limits(limits, error, match):
    with pytest.raises(error, match=match):
        checked_limits(Own(limits), {})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, None),
        (False, None),
        (np.bool_(False), None),
        (Verdict(None, 1, np.float32(2.0)), Verdict(None, 1.0, 2.0)),
        (Verdict(np.int64(5), 3.0, math.inf), Verdict(5, 3.0, math.inf)),
    ],
)
def test_answers(answer, expected):
    found = checked_observe(Own(answer), observation(), {})
    assert found == expected
    if found is not None:
        kinds = [type(field) for field in found]
        assert kinds == [type(None) if found[0] is None else int, float, float]


@pytest.mark.parametrize("answer", [True, np.bool_(True)])
def test_true_is_a_verdict_about_the_step(answer):
    variable, value, baseline = checked_observe(Own(answer), observation(), {})
    assert variable is None and math.isnan(value) and math.isnan(baseline)
    step = observation(loss=3.0, limits={"loss": (0.0, 2.0)})
    variable, value, baseline = checked_observe(Own(answer), step, {})
    assert variable is None and value == 3.0 and math.isnan(baseline)


@pytest.mark.parametrize(
    ("answer", "error", "match"),
    [
        (1.0, TypeError, r"Own.observe\(\) must return a Verdict.*Received: 1.0"),
        ((None, 1.0, 2.0), TypeError, r"Own.observe\(\).*Received: \(None, 1.0, 2.0\)"),
        (Verdict(None, "1", 2.0), TypeError, "two numbers.*'1'"),
        (Verdict(6, 1.0, 2.0), ValueError, "index below 6.*variable=6"),
        (Verdict(-1, 1.0, 2.0), ValueError, "index below 6.*variable=-1"),
        (Verdict("kernel", 1.0, 2.0), ValueError, "index below 6.*'kernel'"),
    ],
)
def test_bad_answers(answer, error, match):
    with pytest.raises(error, match=match):
        checked_observe(Own(answer), observation(), {})


def test_an_error_names_the_detector():
    class Broken(Detector):
        def limits(self, state):
            return {"loss": (0.0, state["level"])}

        def observe(self, step, state):
            return step.losses > 1

    with pytest.raises(
        ValueError, match=r"Broken.limits\(\) failed with KeyError"
    ) as e:
        checked_limits(Broken(), {})
    assert isinstance(e.value.__cause__, KeyError)
    with pytest.raises(ValueError, match=r"Broken.observe\(\) failed with Attribute"):
        checked_observe(Broken(), observation(), {})
