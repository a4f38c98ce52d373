"""The study of replicas: what it prints."""

import re

import pytest

from tests import helper
from tests.test_examples import event_files, run


@pytest.mark.tensorflow
def test_distributed(tmp_path):
    printed = run("distributed.py", tmp_path, "--quick")
    clips, shards = helper.tables(printed)
    norms = [float(row["first update"]) for row in clips]
    assert [norm == 0.1 for norm in norms] == [True, False, True]
    alone, watched = shards[1:]
    assert (alone["where"], alone["what"]) == ("replicas", "stock Keras")
    assert alone["variables with NaN"] == "8 of 8"
    assert (alone["test error"], alone["skipped"]) == ("1.000", "0")
    assert (watched["where"], watched["what"]) == ("replicas", "GradWatch()")
    assert (watched["variables with NaN"], watched["skipped"]) == ("0 of 8", "1")
    assert float(watched["test error"]) < 0.5
    assert re.search(r"step 5: \d+ non-finite .+; the update was skipped", printed)
    logs = tmp_path / "logs" / "distributed"
    assert event_files(logs)["gradwatch"] > 1000
    assert (logs / "distributed.png").stat().st_size > 10_000
