"""Every example runs, says what it promises, and writes TensorBoard logs."""

import os
import re
import subprocess
import sys

import pytest

from tests import helper

STUDIES = {
    path.name.removeprefix("test_")
    for path in (helper.ROOT / "tests" / "studies").glob("test_*.py")
}
EXAMPLES = sorted((helper.ROOT / "examples").glob("*.py"))


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
    here = {"quickstart.py", "subclass.py", "own_train_step.py"}
    assert {path.name for path in EXAMPLES} == here | STUDIES
    assert all(
        (helper.ROOT / "docs/studies" / f"{s[:-3]}.md").exists() for s in STUDIES
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_how_it_is_run(path):
    text = path.read_text(encoding="utf-8")
    options = r" \[--log-dir DIR\] \[--epochs N\]"
    if path.name in STUDIES:
        options = r" \[--quick\]( \[--data NAME\])? \[--log-dir DIR\] \[--out FOLDER\]"
    assert re.search(rf"^    python examples/{path.name}{options}$", text, re.M)


def test_a_study_says_so_where_its_data_cannot_be_downloaded(tmp_path, monkeypatch):
    """Nothing listens at that address."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    for scheme in ("http", "https"):
        monkeypatch.setenv(f"{scheme}_proxy", "http://127.0.0.1:9")
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += "from study import data\n"
    code += "try:\n    data.mnist()\nexcept SystemExit as error:\n    print(error)"
    printed = helper.run_python(code, helper.ROOT / "examples")
    assert "MNIST cannot be downloaded" in printed and "`--quick`" in printed


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
        r"^  step 1: an update changed .+ of its norm \(limit 50%\); .+; "
        "the weights were restored, and updates are now limited to 2.00% of the "
        "weights' norm",
        printed,
        re.M,
    )
    assert "Fix: " in printed
    assert re.search(r"tensorboard\S* --logdir logs/quickstart", printed)
    sizes = event_files(tmp_path / "logs" / "quickstart")
    runs = {"sgd", "sgd-stock", "adam", "adam-stock"}
    assert set(sizes) == {f"{run}/gradwatch" for run in runs}
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
