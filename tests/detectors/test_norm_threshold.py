"""At, below and above the limit, in float32."""

import numpy as np
import pytest

from keras_gradwatch.detectors import NormThreshold, Verdict
from tests.detectors.observations import observation


@pytest.mark.parametrize("limit", [0.1, 0.7, 2.0, 12.5, 1e-3])
def test_it_trips_from_the_limit_on(limit):
    detector = NormThreshold(limit)
    at = np.float32(limit)
    below = np.nextafter(at, np.float32(0))
    for limits in ({}, detector.limits({})):
        step = observation(global_norm=below, limits=limits)
        assert detector.observe(step, {}) is None
        for norm in (at, 2 * at):
            step = observation(global_norm=norm, limits=limits)
            assert detector.observe(step, {}) == Verdict(None, float(norm), limit)


@pytest.mark.parametrize("limit", [0.1, 0.7, 2.0, 1e300])
def test_its_limit_is_a_float32_number(limit):
    low, high = NormThreshold(limit).limits({})["global_norm"]
    assert low == 0 and high == float(np.float32(high)) < limit


def test_the_words():
    words = NormThreshold(2.0).describe(None, 3.0, 2.0)
    assert words == "the global gradient norm is 3, above the limit of 2"
