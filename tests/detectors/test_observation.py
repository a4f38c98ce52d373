"""What is read from a step, and the comparison with limits."""

import math

import numpy as np
import pytest

from tests.detectors.observations import observation

NAN, INF = math.nan, math.inf


def test_a_statistic_that_is_missing_is_not_measured():
    step = observation(max_abs=[1, 2, 3, 4, 5, 6])
    assert step.statistic("max_abs").tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isnan(step.statistic("std")).all() and len(step.statistic("std")) == 6


def test_quantities():
    step = observation(loss=-3.0, global_norm=2.0)
    assert step.quantity("loss") == 3.0 and step.quantity("global_norm") == 2.0
    with pytest.raises(ValueError, match=r"global_norm, loss, update_ratio.*'norm'"):
        step.quantity("norm")


@pytest.mark.parametrize(
    ("weights", "ratios", "expected"),
    [
        ([10.0, 1.0, 10.0], [0.1, 9.0, 0.3], 0.3),  # the middle one is a bias
        ([0.1, 1.0, 10.0], [1.0, 9.0, 0.3], 0.3),  # 0.1 counts as 0.05·√400 = 1
        ([0.0, 1.0, 10.0], [INF, 9.0, 0.3], 0.3),
        ([10.0, 1.0, 10.0], [NAN, 9.0, 0.3], INF),
        ([NAN, 1.0, 10.0], [NAN, 9.0, 0.3], 0.3),
        ([NAN, 1.0, NAN], [NAN, 9.0, NAN], NAN),
    ],
)
def test_the_update_ratio(weights, ratios, expected):
    step = observation(
        kernels=(1, 0, 1),
        sizes=(400, 20, 400),
        weight_norm=weights,
        update_ratio=ratios,
    )
    found = step.quantity("update_ratio")
    np.testing.assert_allclose(found, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, None),
        ({"global_norm": (0.0, 2.0)}, None),
        ({"global_norm": (0.0, 1.5)}, ("global_norm", 2.0, 1.5)),
        ({"global_norm": (2.5, 3.0)}, ("global_norm", 2.0, 2.5)),
        ({"loss": (0.0, 2.0)}, ("loss", 3.0, 2.0)),
        ({"global_norm": (0, INF), "loss": (0, 1)}, ("loss", 3.0, 1)),
        ({"update_ratio": (0.0, 0.0)}, None),  # unknown
    ],
)
def test_crossed(limits, expected):
    step = observation(loss=-3.0, global_norm=2.0, limits=limits)
    assert step.crossed() == expected
    assert step._replace(limits={}).crossed(limits) == expected


def test_what_is_unknown_crosses_no_limit():
    step = observation(loss=NAN, limits={"loss": (0.5, 1.0)})
    assert step.crossed() is None
