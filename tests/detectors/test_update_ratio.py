"""An update relative to the weights, of kernels only."""

import numpy as np
import pytest

from keras_gradwatch.detectors import UpdateRatio, Verdict
from keras_gradwatch.detectors.update_ratio import FLOOR
from tests.detectors.observations import observation

INF, NAN = float("inf"), float("nan")
TWO = {"kernels": (1, 0), "sizes": (15, 3)}


@pytest.mark.parametrize(
    ("weights", "ratios", "expected"),
    [
        ([2.0, 1.0], [0.4, 99.0], None),  # a bias is not judged
        ([2.0, 1.0], [0.5, 0.0], 0.5),
        ([2.0, 1.0], [0.6, 0.0], 0.6),
        ([2.0, 1.0], [NAN, 0.0], INF),
        ([2.0, 1.0], [INF, 0.0], INF),
        # ‖w‖ below 0.5·√15: the ratio counts against that.
        ([0.5, 1.0], [1.0, 0.0], None),
        ([0.5, 1.0], [2.5, 0.0], 1.25 / (0.5 * 15**0.5)),
        ([0.0, 1.0], [INF, 0.0], None),  # it must be able to leave 0
        ([NAN, NAN], [NAN, NAN], None),  # not measured
    ],
)
def test_one_kernel(weights, ratios, expected):
    step = observation(weight_norm=weights, update_ratio=ratios, **TWO)
    verdict = UpdateRatio(0.5, floor=0.5).observe(step, {})
    assert verdict == (expected and Verdict(0, pytest.approx(expected), 0.5))


def test_it_names_the_worst_kernel():
    random = np.random.default_rng(0)
    tripped = 0
    for _ in range(50):
        weights = random.lognormal(0, 1, 6)
        ratios = random.lognormal(-1.5, 1, 6)
        step = observation(weight_norm=weights, update_ratio=ratios)
        expected = [
            ratio * weight / max(weight, 0.05 * size**0.5)
            for ratio, weight, size in zip(
                ratios[::2], weights[::2], step.sizes[::2], strict=True
            )
        ]
        assert step.quantity("update_ratio") == pytest.approx(max(expected))
        verdict = UpdateRatio(0.5).observe(step, {})
        assert (verdict is not None) == (max(expected) >= 0.5)
        if verdict is not None:
            worst = 2 * expected.index(max(expected))
            assert verdict == Verdict(worst, pytest.approx(max(expected)), 0.5)
            tripped += 1
    assert 5 < tripped < 45


def test_a_step_whose_update_was_not_measured():
    assert UpdateRatio().observe(observation(), {}) is None
    assert np.isnan(observation().quantity("update_ratio"))


def test_its_limit_and_what_it_reads():
    detector = UpdateRatio(0.5)
    assert detector.limits({}) == {"update_ratio": (0.0, 0.5 - 2**-25)}
    assert set(detector.reads) == {"update_ratio", "weight_norm"}
    assert detector.settings == {"limit": 0.5, "floor": FLOOR}


def test_the_words():
    assert UpdateRatio().describe("w", 0.7, 0.5) == (
        "an update changed w by 70% of its norm (limit 50%)"
    )
