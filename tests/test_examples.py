"""Every example runs, says what it promises, and writes TensorBoard logs."""

import os
import re
import subprocess
import sys

import pytest

from tests import helper

EXAMPLES = sorted((helper.ROOT / "examples").glob("*.py"))
STUDIES = {  # each has a file of tests of its own
    path.name.removeprefix("test_")
    for path in (helper.ROOT / "tests" / "studies").glob("test_*.py")
}


def run(name, cwd, *arguments):
    """Runs an example in `cwd`, and returns what it printed."""
    env = {
        **os.environ,
        "PYTHONPATH": str(helper.ROOT),
        "PYTHONIOENCODING": "utf-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    done = subprocess.run(
        [sys.executable, str(helper.ROOT / "examples" / name), *arguments],
        cwd=cwd,
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def event_files(folder):
    """Sizes of the event files below a folder, by the run's name."""
    return {
        str(path.parent.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("events.out.tfevents.*")
    }


def test_each_example_has_a_test():
    tested = {"quickstart.py", "subclass.py", "own_train_step.py", "distributed.py"}
    assert {path.name for path in EXAMPLES} == tested | STUDIES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_how_it_is_run(path):
    arguments = r"\[--log-dir DIR\] \[--epochs N\]"
    if path.name in STUDIES:
        arguments = r"\[--quick\]( \[--data NAME\])? \[--log-dir DIR\] \[--out FOLDER\]"
    usage = rf"^    python examples/{path.name} {arguments}$"
    assert re.search(usage, path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.tensorflow  # elsewhere: test_without_tensorflow.py
def test_quickstart(tmp_path):
    printed = run("quickstart.py", tmp_path, "--epochs", "2")
    for row in ("stock Keras", r"global_clipnorm=1", r"GradWatch\(\)"):
        # accuracy, norm, non-finite steps, events, last rate; once for each scenario
        cells = r" +([\d.]+) +([\d.e+]+) +(\d+) +(\d+) +([\d.]+)$"
        found = re.findall(rf"^{row}{cells}", printed, re.M)
        assert len(found) == 2, printed
    assert all(int(events) > 0 for *_, events, _ in found)
    assert re.search(
        r"^  step 0: the update of .+; updates are held to 0.02 times the weights",
        printed,
        re.M,
    )
    assert "what to change:" in printed
    assert "tensorboard --logdir logs/quickstart" in printed
    sizes = event_files(tmp_path / "logs" / "quickstart")
    assert set(sizes) == {"sgd/gradwatch", "adam/gradwatch"}
    assert min(sizes.values()) > 1000


@pytest.mark.thorough
def test_subclass(tmp_path):
    printed = run("subclass.py", tmp_path, "--epochs", "1")
    assert float(re.search(r"test accuracy: ([\d.]+)", printed)[1]) > 0.5
    assert re.search(r"^mean gradient norm of each epoch: \d+\.\d\d$", printed, re.M)
    clipped, steps = re.search(r"clipped to norm 2: (\d+) of (\d+)", printed).groups()
    assert 0 < int(clipped) <= int(steps) == 43
    assert re.search(r"largest mean norm: [\d.]+ in classifier/", printed)
    assert event_files(tmp_path / "logs" / "subclass")["gradwatch"] > 1000


@pytest.mark.tensorflow
def test_own_train_step(tmp_path):
    printed = run("own_train_step.py", tmp_path, "--epochs", "1", "--log-dir", "here")
    alone, watched = printed.split("watched:")
    assert "variables with NaN: 8 of 8" in alone
    assert "loss: nan" in alone
    assert "variables with NaN: 0 of 8" in watched
    assert re.search(r"loss: \d+\.\d+", watched)
    assert "step 7: 4096 non-finite gradient values in mixup/hidden/kernel" in watched
    assert "steps: 57, of which skipped: 1" in watched
    assert event_files(tmp_path / "here")["gradwatch"] > 1000


@pytest.mark.tensorflow
def test_distributed(tmp_path):
    printed = run("distributed.py", tmp_path, "--epochs", "1")
    norms = re.findall(r"^  (.+?)  +([\d.]+)$", printed, re.M)
    assert [float(norm) == 0.1 for _, norm in norms] == [True, False, True]
    assert norms[-1][0] == "replicas, GradientClipping"
    alone, watched = printed.split("with GradWatch:")
    assert "loss nan" in alone and re.search(r"loss \d+\.\d+", watched)
    assert re.search(r"step 5: \d+ non-finite .+; the update was skipped", watched)
    assert event_files(tmp_path / "logs" / "distributed")["gradwatch"] > 1000
