"""What a `fit` prints: a few lines for each kind of event, then a count."""

import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion
from tests import helper


def poisoned(batches):
    x, y = helper.regression_data(80)
    for batch in batches:
        x = helper.with_nan(x, batch, 8)
    return x, y


def lines_of(capsys):
    printed = capsys.readouterr().out.splitlines()
    return [line for line in printed if line.startswith("[gradwatch]")]


def test_equal_events_are_counted(capsys):
    bad = [1, 3, 5, 6, 8]
    model = helper.regression("adam")
    helper.fit(model, *poisoned(bad), [SkipOnExplosion()])
    lines = lines_of(capsys)
    assert len(lines) == 5
    for line, batch in zip(lines[:3], bad, strict=False):
        assert f"step {batch}:" in line
    assert "nonfinite, skipped" in lines[3]
    assert "5 times in steps 1 to 8" in lines[4]


def test_a_few_events_are_told_and_not_counted(capsys):
    model = helper.regression("adam")
    helper.fit(model, *poisoned([1, 3]), [SkipOnExplosion()])
    assert [("step" in line) for line in lines_of(capsys)] == [True, True]


def test_two_callbacks_tell_an_event_once(capsys):
    model = helper.regression("adam")
    helper.fit(model, *poisoned([1]), [SkipOnExplosion(), GradWatch(max_rewinds=0)])
    assert sum("step 1:" in line for line in lines_of(capsys)) == 1


def test_the_report_is_of_the_fit_in_which_something_happened(capsys):
    """keras-rl#376: one skipped step in the first of many short fits."""
    model, watch = helper.regression("adam"), GradWatch()
    for bad in ([1], [], []):
        helper.fit(model, *poisoned(bad), [watch])
    text = capsys.readouterr().out
    assert text.count("Diagnosis (") == 1


@pytest.mark.parametrize("verbose", [1, "auto"])
def test_a_line_is_clear_of_the_progress_bar(verbose, capsys):
    model = helper.regression("adam")
    x, y = poisoned([1])
    model.fit(x, y, batch_size=8, verbose=verbose, callbacks=[SkipOnExplosion()])
    assert "\n[gradwatch] epoch 1, step " in capsys.readouterr().out.replace("\r", "")
    assert np.isfinite(model.get_weights()[0]).all()
