"""What is asked for may change between fits, and between single batches."""

import numpy as np

from keras_gradwatch import callbacks, detectors, watch
from tests import helper


def test_a_fit_that_observes_is_not_protected_by_the_one_before():
    model = helper.regression()
    x, y = helper.regression_data()
    bad = helper.with_nan(x, 1, 8)
    helper.fit(model, bad, y, [callbacks.SkipOnExplosion(verbose=0)])
    assert helper.all_finite(helper.values(model.weights))
    history = callbacks.GradientHistory()
    helper.fit(model, bad, y, [history])
    assert history.applied.all()
    assert not helper.all_finite(helper.values(model.weights))


def test_steps_are_kept_where_the_next_ones_record_more():
    model = watch(helper.regression())
    x, y = helper.regression_data(8)
    model.train_on_batch(x, y)
    watch(model, detector=detectors.NormThreshold(1e-6))
    model.train_on_batch(x, y)
    rows = model.gradwatch.drain()
    assert rows.steps.tolist() == [1]
    (event,) = model.gradwatch.recorder.events
    assert event.step == 1
    assert np.isfinite(rows.scalars["global_norm"]).all()
