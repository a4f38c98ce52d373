"""No gradient in any kernel, for some steps in a row."""

import numpy as np
import pytest

from keras_gradwatch.detectors import Collapse, Verdict
from tests.detectors.observations import Watch

DEAD, ALIVE = [0.0, 1.0], [1e-9, 1.0]


def test_it_trips_once_and_again_after_a_gradient():
    watch = Watch(Collapse(3), kernels=(1, 0))
    # What has never had a gradient cannot lose it.
    sequence = [DEAD] * 9 + [ALIVE] + [DEAD] * 6 + [ALIVE] + [DEAD] * 3
    assert watch.sequence("norms", sequence) == [12, 19]
    assert watch.verdict == Verdict(None, 3.0, 3.0)
    words = watch.detector.describe(None, 3.0, 3.0)
    assert words == "no gradient has reached any kernel for 3 steps"


@pytest.mark.parametrize(
    ("norms", "global_norm", "kernels"),
    [
        ([0.0, 0.0], 0.0, (1, 0)),  # a loss that is satisfied has no gradient at all
        ([np.nan, 1.0], 1.0, (1, 0)),  # the kernel is disconnected
        ([0.0, 1.0], 1.0, (0, 0)),  # there is no kernel
        ([0.0, 1.0], 1.0, (1, 1)),  # another kernel has a gradient
    ],
)
def test_what_is_no_collapse(norms, global_norm, kernels):
    watch = Watch(Collapse(3), kernels=kernels)
    watch(1, norms=[1.0, 1.0])
    watch(9, norms=norms, global_norm=global_norm)
    assert watch.tripped == []
