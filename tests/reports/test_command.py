"""`python -m keras_gradwatch report`: what it says of files alone."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch.callbacks import GradientTensorBoard, GradWatch
from keras_gradwatch.reports import command
from tests import helper


def python(*arguments):
    """`python -m keras_gradwatch` with arguments, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_gradwatch", *arguments],
        env={**os.environ, "PYTHONPATH": str(helper.ROOT)},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """`(log directory, report)` of a run with incidents at steps 2 and 100."""
    directory = tmp_path_factory.mktemp("logs")
    x, y = helper.regression_data(120)
    x[[2, 4, 100]] = np.nan
    watching = GradWatch(directory, save_batch=1000, verbose=0, trust_bound=None)
    helper.fit(helper.regression(), x, y, [watching], batch_size=1)
    return directory, watching.report()


def test_the_report_and_the_incidents(logs, capsys):
    directory, report = logs
    assert command.main(["report", str(directory)]) == 0
    printed = capsys.readouterr().out
    status = "the run ended at step 120."
    assert printed.startswith(f"{status}\n{report}\nincidents: 2\n")
    events = directory / "gradwatch" / "events"
    messages = [
        json.loads(line)["message"]
        for line in (directory / "gradwatch" / "events.jsonl").read_text().splitlines()
    ]
    files = "batch.npz, event.json, rows.csv, weights.json"
    lines = printed.splitlines()[-5:]
    assert lines == [
        f"step 2: {events / 'step_0000002'}: {files}",
        *(f"  {m}" for m in messages[:2]),
        f"step 100: {events / 'step_0000100'}: {files}",
        f"  {messages[2]}",
    ]
    # The directory itself does as well.
    assert command.main(["report", str(directory / "gradwatch")]) == 0
    assert capsys.readouterr().out == printed


def test_as_a_program(logs, capsys):
    directory, _ = logs
    done = python("report", str(directory))
    assert done.returncode == 0
    command.main(["report", str(directory)])
    assert done.stdout == capsys.readouterr().out


def test_the_process_was_killed(tmp_path, capsys):
    class Kill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    x, y = helper.regression_data(24)
    callbacks = [GradWatch(tmp_path, verbose=0), Kill()]
    with pytest.raises(KeyboardInterrupt):
        helper.fit(
            helper.regression(run_eagerly=True),
            helper.with_nan(x, 1, 8),
            y,
            callbacks,
            epochs=2,
        )
    directory = tmp_path / "gradwatch"
    # What was written at the end of the first epoch.
    assert command.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    where = f"process {os.getpid()} on "
    assert printed.startswith(f"the run is running in {where}")
    assert "1 of 3 steps had non-finite values" in printed
    run = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps({**run, "process": 2**22 + 1}))
    (directory / "report.txt").unlink()
    for file in (directory / "events" / "step_0000001").iterdir():
        file.unlink()
    (directory / "events" / "step_0000001").rmdir()
    with open(directory / "events.jsonl", "a") as file:
        file.write('{"step": 2, "mess')  # in the middle of a line
    assert command.main(["report", str(tmp_path)]) == 0
    status, first, *rest = capsys.readouterr().out.splitlines()
    assert status.startswith("the run was interrupted")
    assert first.startswith("there is no report.txt in")
    assert rest[:2] == ["incidents: 1", "step 1: no files were saved"]
    assert len(rest) == 3 and rest[2].startswith("  step 1: 15 non-finite gradient")


def test_long_incidents_are_cut_short(tmp_path, capsys):
    events = [{"step": step, "message": f"step {step}: ..."} for step in range(60)]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    (tmp_path / "events.jsonl").write_text(lines)
    assert command.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "\n  step 4: ...\n  further events: 55\n" in printed


def test_a_directory_whose_events_are_in_no_list(tmp_path, capsys):
    """Of an endless run, only the first events are in `events.jsonl`."""
    (tmp_path / "events.jsonl").write_text('{"step": 3, "message": "step 3: a"}\n')
    for step, content in ((9, '{"events": [{"message": "step 9: b"}]}'), (12, "{")):
        folder = tmp_path / "events" / f"step_{step:07d}"
        folder.mkdir(parents=True)
        (folder / "event.json").write_text(content)
    assert command.main(["report", str(tmp_path)]) == 0
    _, *printed = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in printed] == [
        "incidents",
        "step 3",
        "  step 3",
        "step 9",
        "  step 9",
        "step 12",
    ]


@pytest.mark.parametrize("there", [False, True])
def test_nothing_to_report(there, tmp_path, capsys):
    directory = tmp_path / "logs"
    if there:
        directory.mkdir()
    assert command.main(["report", str(directory)]) == 2
    out, error = capsys.readouterr()
    assert not out and str(directory) in error
    missing = "no report.txt and no events.jsonl" if there else "no directory"
    assert missing in error


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--help"], 0, "print what happened in a run"),
        (["report", "--help"], 0, "LOGDIR"),
        ([], 2, "required: command"),
        (["report"], 2, "required: LOGDIR"),
        (["explode"], 2, "invalid choice: 'explode'"),
    ],
)
def test_arguments(arguments, status, words, capsys):
    with pytest.raises(SystemExit) as exit:
        command.main(arguments)
    assert exit.value.code == status
    assert words in "".join(capsys.readouterr())


def test_several_runs_are_listed(logs, tmp_path, capsys):
    directory, report = logs
    for name in ("b", "a"):
        shutil.copytree(directory / "gradwatch", tmp_path / "runs" / name)
    assert command.main(["report", str(tmp_path)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    verdict = report.verdict.replace("\n", " ")
    assert first == f"{tmp_path / 'runs' / 'a'}: {verdict}"
    assert second.startswith(f"{tmp_path / 'runs' / 'b'}: ")


def test_json(logs, capsys):
    directory, report = logs
    assert command.main(["report", "--json", str(directory)]) == 0
    (found,) = json.loads(capsys.readouterr().out).values()
    assert found.pop("status") == "the run ended at step 120."
    assert found == report.to_dict()


def test_an_explosion_without_protection_is_an_exit_status(tmp_path):
    x, y = helper.digits(320)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    helper.compiled(model, keras.optimizers.SGD(1e30))
    helper.fit(model, x, y, [GradientTensorBoard(tmp_path)])
    assert command.main(["report", str(tmp_path)]) == 1


@pytest.mark.thorough
def test_pages_and_a_table_of_runs(logs, tmp_path, capsys):
    directory, _ = logs
    for name in ("b", "a"):
        shutil.copytree(directory / "gradwatch", tmp_path / name / "gradwatch")
    (tmp_path / "a" / "gradwatch" / "record.gwr").write_bytes(b"nothing of ours")
    out = tmp_path / "page.html"
    assert command.main(["html", str(directory), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote the page to {out}\n"
    whole = out.read_text(encoding="utf-8")
    assert whole.startswith("<!DOCTYPE html>") and "Protected: " in whole
    again = [str(directory), str(tmp_path)]
    assert command.main(["compare", *again, "--out", str(out)]) == 0
    printed, error = capsys.readouterr()
    head, *rows, last = printed.splitlines()
    assert last == f"wrote the page to {out}"
    assert [row.split()[1:4] for row in rows] == [["120", "2", rows[0].split()[3]]] * 2
    assert head.split()[0] == "steps" and len(error.splitlines()) == 1
    assert "not shown: " in error and "a: " in error
    assert out.read_text(encoding="utf-8").count('class="verdict ') == 3


def test_no_page_without_a_record(tmp_path, capsys):
    (tmp_path / "report.txt").write_text("an old run")
    out = tmp_path / "page.html"
    assert command.main(["html", str(tmp_path), "--out", str(out)]) == 2
    assert "has no record.gwr" in capsys.readouterr().err
    assert not out.exists()


def test_version_and_no_keras():
    """The command reads files: it answers without loading Keras."""
    assert python("--version").stdout.split() == [keras_gradwatch.__version__]
    code = (
        "import sys; sys.argv = ['gradwatch']; import keras_gradwatch.reports.command"
    )
    code += "; print({'keras', 'numpy', 'tensorboard'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(helper.ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "set()\n", done.stderr
