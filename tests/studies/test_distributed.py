"""The study of replicas: what it prints."""

import re

import pytest

from tests.test_examples import event_files, run


@pytest.mark.tensorflow
def test_distributed(tmp_path):
    printed = run("distributed.py", tmp_path, "--quick")
    norms = re.findall(
        r"^\| (one device|replicas) +\| .+ \| ([\d.]+) +\|$", printed, re.M
    )
    # A first update has four decimals, a number of skipped steps has none.
    norms = [float(norm) for _, norm in norms if "." in norm]
    assert [norm == 0.1 for norm in norms] == [True, False, True]
    row = r"^\| {} +\| {} +\| (\d) of 8 +\| ([\d.]+) +\| (\d) +\|$"
    alone = re.search(row.format("replicas", "stock Keras"), printed, re.M).groups()
    assert int(alone[0]) == 8 and alone[1:] == ("1.000", "0")
    broken, error, skipped = re.search(
        row.format("replicas", r"GradWatch\(\)"), printed, re.M
    ).groups()
    assert (broken, skipped) == ("0", "1") and float(error) < 0.5
    assert re.search(r"step 5: \d+ non-finite .+; the update was skipped", printed)
    logs = tmp_path / "logs" / "distributed"
    assert event_files(logs)["gradwatch"] > 1000
    assert (logs / "distributed.png").stat().st_size > 10_000
