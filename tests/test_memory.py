"""Memory does not grow with steps."""

import gc
import tracemalloc

import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch
from tests import helper

# Thousands of steps: eager, they take minutes.
pytestmark = pytest.mark.tensorflow


def test_a_long_fit_leaves_nothing_in_memory(tmp_path):
    x, y = helper.regression_data(600)
    model = helper.regression()
    watching = GradWatch(tmp_path, verbose=0, history_steps=100)

    def kept():
        helper.fit(model, x, y, [watching], batch_size=1)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        kept()
        before = kept()
        after = kept()
    finally:
        tracemalloc.stop()
    assert model.gradwatch.step == 1800
    # A step takes 4 · (10 + 3 · 2) + 4 · 14 + 8 = 128 bytes: 600 of them, 77 kB.
    assert after - before < 40_000
    assert len(watching.history.steps) <= 200


def test_events_are_bounded():
    x, y = helper.regression_data(1100)
    model = helper.regression()
    watching = GradWatch(verbose=0, max_events=10_000, history_steps=100)
    helper.fit(model, np.full_like(x, np.nan), y, [watching], batch_size=1)
    assert model.gradwatch.step == 1100
    assert len(watching.events) <= 1000
    assert len(model.gradwatch.recorder.events) <= 1000
    assert len(watching.history.events) <= 200
