"""When the host reads every step, and measures every update."""

import numpy as np

from keras_gradwatch.callbacks import GradWatch
from tests import helper


def test_a_later_fit_is_attentive_in_its_first_step_only():
    """Many short fits, as in reinforcement learning, must not pay for it each time."""
    x, y = helper.regression_data(8 * 120)
    model, watch = helper.regression(), GradWatch(verbose=0)
    for _ in range(2):
        helper.fit(model, x, y, [watch])
    ratios = watch.history.statistics["update_ratio"]
    measured = np.flatnonzero(np.isfinite(ratios).any(axis=1))
    assert measured.tolist() == [*range(100), 100, 120, 150, 200]


def test_a_model_that_was_compiled_again_is_looked_at_again():
    """Its first updates are those of another optimizer."""
    x, y = helper.regression_data(8 * 60)
    model, watch = helper.regression(), GradWatch(verbose=0, dense_steps=5)
    for _ in range(2):
        helper.fit(model, x, y, [watch])
        model.compile("adam", "mse")
    ratios = watch.history.statistics["update_ratio"]
    measured = np.flatnonzero(np.isfinite(ratios).any(axis=1))
    assert measured.tolist() == [*range(5), 50, *range(60, 65), 100]
