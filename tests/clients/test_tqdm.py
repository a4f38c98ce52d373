"""Lines beside the bars of tqdm."""

import io
import re

import numpy as np
import pytest

from keras_gradwatch.callbacks import SkipOnExplosion
from tests import helper

pytestmark = [pytest.mark.tensorflow, pytest.mark.torch]

tqdm_keras = pytest.importorskip("tqdm.keras", reason="tqdm is not installed")


def screen(text):
    """What a terminal shows: a carriage return begins the line again."""
    shown = []
    for line in text.split("\n"):
        row = ""
        for part in re.split("\r", line):
            row = part + row[len(part) :]
        shown.append(row.rstrip())
    return shown


@pytest.mark.filterwarnings("ignore::tqdm.TqdmWarning")
def test_a_line_stands_clear_of_the_bars(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setattr("sys.stderr", terminal)
    x, y = helper.regression_data(24)
    bars = tqdm_keras.TqdmCallback(
        verbose=0, tqdm_class=tqdm_keras.TqdmCallback.__init__.__globals__["tqdm_auto"]
    )
    skip = SkipOnExplosion()
    helper.fit(helper.regression(), helper.with_nan(x, 1, 8), y, [bars, skip])
    lines = [line for line in screen(terminal.getvalue()) if "[gradwatch]" in line]
    (line,) = lines
    assert line.startswith("[gradwatch] epoch 1, step 1: ")
    assert line.endswith("the update was skipped")


def test_without_a_bar_it_is_printed_as_ever(capsys):
    x, y = helper.regression_data(24)
    bad = helper.with_nan(x, 1, 8)
    helper.fit(helper.regression(), bad, y, [SkipOnExplosion()], verbose=1)
    assert "\n[gradwatch] epoch 1, step 1: " in capsys.readouterr().out
    assert np.isfinite(bad[:8]).all()
