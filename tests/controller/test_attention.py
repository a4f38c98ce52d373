"""When the host reads every step, and measures every update."""

import numpy as np

from keras_gradwatch.callbacks import GradWatch
from tests import helper


def test_a_later_fit_is_not_attentive_again():
    """Many short fits, as in reinforcement learning, must not pay for it each time."""
    x, y = helper.regression_data(8 * 120)
    model, watch = helper.regression(), GradWatch(verbose=0)
    for _ in range(2):
        helper.fit(model, x, y, [watch])
    ratios = watch.history.statistics["update_ratio"]
    measured = np.flatnonzero(np.isfinite(ratios).any(axis=1))
    assert measured.tolist() == [*range(100), 100, 150, 200]
