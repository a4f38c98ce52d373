"""Several devices, and several processes, are as one: `keras.distribution` on JAX."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from tests import helper

pytestmark = pytest.mark.jax
PROGRAM = helper.ROOT / "tests" / "distribution" / "train.py"


def begin(kinds, directory, processes=1, rank=0, port=0):
    """Starts `train.py` in a process of its own."""
    arguments = (",".join(kinds), directory, processes, rank, port)
    env = {**os.environ, "PYTHONPATH": str(helper.ROOT)}
    env.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.Popen(
        [sys.executable, PROGRAM, *map(str, arguments)],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(directory, *started):
    """What each of the started processes has recorded, and what it has printed."""
    try:
        printed = [process.communicate(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()  # one that waits for another that has failed
    for process, (out, error) in zip(started, printed, strict=True):
        assert process.returncode == 0, f"{out}\n{error}"
    records = [
        json.loads((directory / f"{rank}.json").read_text())
        for rank in range(len(started))
    ]
    return records, [out for out, _ in printed]


def free_port():
    with socket.socket() as opened:
        opened.bind(("localhost", 0))
        return opened.getsockname()[1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process has recorded, on one device and on four."""
    directory = tmp_path_factory.mktemp("alone")
    (records,), _ = outcome(directory, begin(["one", "data", "model"], directory))
    return records


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The directory of two processes, what they have recorded, and what they say."""
    directory, port = tmp_path_factory.mktemp("together"), free_port()
    started = [begin(["data", "model"], directory, 2, r, port) for r in range(2)]
    return directory, *outcome(directory, *started)


def assert_alike(record, expected):
    """The same decisions in the same steps, and the same numbers to 1e-4."""
    assert record["events"] == expected["events"]
    assert record["applied"] == expected["applied"]
    for name in ("norm", "weights", "rates"):
        np.testing.assert_allclose(
            record[name], expected[name], 1e-4, 1e-6, err_msg=name
        )


@pytest.mark.parametrize("kind", ["data", "model"])
def test_four_devices_are_as_one(alone, kind):
    assert_alike(alone[kind], alone["one"])


def test_what_happens_is_what_should(alone):
    record = alone["one"]
    assert [3, "nonfinite", "skipped"] in record["events"]
    assert not record["applied"][3] and np.isnan(record["norm"][3])
    assert record["events"][0] == [0, "norm", "rewound"]
    # The second fit goes on from where the last way back led to: the first weights,
    # but for some steps at a small fraction of the rate.
    weights = record["weights"]
    np.testing.assert_allclose(weights[12], weights[0], 1e-4, 5e-4)
    assert min(record["rates"]) < max(record["rates"]) / 4


@pytest.mark.parametrize("kind", ["data", "model"])
def test_two_processes_are_as_one(alone, together, kind):
    _, records, _ = together
    for record in records:
        assert_alike(record[kind], alone["one"])


def test_one_process_writes_and_prints(together):
    directory, _, (chief, other) = together
    assert chief.count(", step 3: 1024 non-finite gradient values") == 2
    assert "[gradwatch]" not in other
    assert not (directory / "logs1").exists()
    for kind in ("data", "model"):
        written = directory / "logs0" / kind / "gradwatch"
        assert len(list(written.glob("events.out.tfevents.*"))) >= 2
        assert (written / "report.txt").stat().st_size > 100
        assert (written / "state.jsonl").stat().st_size > 100
        incident, *_ = (written / "events").glob("*/weights.json")
        weights = json.loads(incident.read_text())["weights"]
        whole = {"norm" in w for w in weights if w["path"].endswith("/kernel")}
        assert whole == {kind == "data"}  # a part is in the other process


def test_a_run_is_taken_up_in_all_processes(together):
    _, records, (chief, _) = together
    # Two fits, and one batch, which nobody recorded.
    for record in records:
        begin = len(record["data"]["norm"]) + 1
        assert record["data"]["taken_up"] == begin
        assert f"[gradwatch] resuming at step {begin}" in chief
