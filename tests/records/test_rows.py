"""What is said of a step, from what was recorded of it."""

import numpy as np
import pytest

from keras_gradwatch.detectors import DeadUnits, UpdateRatio
from keras_gradwatch.records.rows import SCALARS, Layout, Trip


def rows_of(**scalars):
    """One recorded step of one variable."""
    layout = Layout(("w",), ("norm",), 1, (4.0,), (True,))
    values = {**dict.fromkeys(SCALARS, 0.0), "learning_rate": 0.1, **scalars}
    row = [*(values[name] for name in SCALARS), 1.0]
    return layout.unpack([7], np.float32([row]))


@pytest.mark.parametrize(
    ("scalars", "followed", "action"),
    [
        ({"held": 1.0}, True, "clipped"),
        ({"held": 1.0}, False, "observed"),
        ({"clipped": 1.0}, False, "clipped"),
        ({"outcome": 1.0}, False, "skipped"),
        ({}, True, "observed"),
    ],
)
def test_what_was_done(scalars, followed, action):
    """A trust region is not what was done about a detector that is only observed."""
    rows = rows_of(**scalars)
    detector = UpdateRatio() if followed else DeadUnits()
    rows.trips.append(Trip(0, detector, 0, 0.9, 0.5, followed=followed))
    (event,) = rows.events()
    assert (event.step, event.variable, event.action) == (7, "w", action)
    assert ("nothing was changed" in event.message) is (action == "observed")


def test_a_cut_of_the_rate_belongs_to_what_has_caused_it():
    rows = rows_of()
    rows.scalars["rate_factor"][0] = 0.5
    for followed in (True, False):
        rows.trips.append(Trip(0, DeadUnits(), 0, 0.9, 0.5, followed=followed))
    first, second = rows.events()
    assert first.action == "rate reduced" and "0.1 -> 0.05" in first.message
    assert second.action == "observed" and "->" not in second.message
