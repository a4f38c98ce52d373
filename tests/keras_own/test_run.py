"""`run.py` says so where a test of Keras fails on a watched model, or nothing ran."""

import subprocess
import sys

import pytest

from tests.keras_own import run

STOCK = {"tests": {"a": "passed", "b": "passed", "c": "failed"}}


def watched(outcome="passed", trainers=1, steps=1):
    tests = {"a": "passed", "b": outcome, "c": "failed"}
    if outcome == "not run":
        del tests["b"]
    reasons = {"b": "because"}
    return {"tests": tests, "reasons": reasons, "trainers": trainers, "steps": steps}


def test_no_difference():
    assert run.compare("observe", STOCK, watched(), {}) == []
    assert run.compare("observe", STOCK, watched("failed"), {"b": "it is NaN"}) == []


@pytest.mark.parametrize("outcome", ["failed", "skipped", "not run"])
def test_a_test_that_passes_on_stock_keras_only(outcome):
    (complaint,) = run.compare("observe", STOCK, watched(outcome), {})
    assert complaint == f"observe: b {outcome}, stock passed\nbecause"


def test_a_purpose_that_is_no_longer_one():
    (complaint,) = run.compare("observe", STOCK, watched(), {"b": "it is NaN"})
    assert "b passes" in complaint and "it is NaN" in complaint


@pytest.mark.parametrize(
    "outcomes", [None, watched(trainers=0, steps=0), watched(steps=0)]
)
def test_a_run_that_tells_nothing(outcomes):
    (complaint,) = run.compare("observe", STOCK, outcomes, {})
    assert complaint.startswith("observe: ")


@pytest.mark.tensorflow
def test_nothing_is_collected():
    """In a real run: of Keras's tests, none is chosen."""
    options = ["--modes", "observe", "--tests", "callbacks", "-k", "no_such_test"]
    done = subprocess.run(
        [sys.executable, run.__file__, *options], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "0 passed" in done.stdout and "no test passed" in done.stdout
