"""When a condition counts as begun, and as gone."""

import pytest

from keras_gradwatch.detectors.onset import Onset


@pytest.mark.parametrize(
    ("patience", "holds", "onsets"),
    [
        (1, "1101", [0, 3]),
        (3, "111111", [2]),
        (3, "11011011", []),  # never three in a row
        (3, "110111", [5]),
        (3, "111001001111", [2]),  # never gone for three
        (3, "1110001101110001110", [2, 11, 17]),
        (3, "1110001100111", [2, 12]),
    ],
)
def test_a_change_counts_after_patience_judgements_in_a_row(patience, holds, onsets):
    detector = Onset(patience)
    state = detector.initial_state(2)
    found = [i for i, one in enumerate(holds) if detector.onset(one == "1", state)]
    assert found == onsets
