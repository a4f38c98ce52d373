"""The record on disk, from generated rows."""

import io
import json
import os

import numpy as np
import pytest

from keras_gradwatch.records import record_file
from keras_gradwatch.records.events import Event
from keras_gradwatch.records.load import load
from keras_gradwatch.records.record import Record
from keras_gradwatch.records.rows import SCALARS, Layout

NAMES = ("norm", "nonfinite_count", "weight_norm")


def rows_of(begin, end, variables=("a", "b")):
    """Rows whose norms are numbered, and whose weights are measured."""
    layout = Layout(tuple(variables), NAMES)
    steps = np.arange(begin, end)
    values = np.zeros((len(steps), layout.width), "float32")
    values[:, SCALARS.index("global_norm")] = steps
    recorded = values[:, len(SCALARS) :].reshape(len(steps), len(variables), 3)
    recorded[:, :, 0] = steps[:, None] + 0.1 * np.arange(len(variables))
    recorded[:, :, 2] = 5
    return layout.unpack(steps, values)


def event(step):
    return Event(step, "spike", "a", 1.0, np.inf, "observed", f"step {step}")


def written(directory, steps=20, events=()):
    """A record of `steps` steps, drained ten at a time."""
    record = Record(directory)
    record.begin(0)
    for begin in range(0, steps, 10):
        own = [event(s) for s in events if begin <= s < begin + 10]
        record.add(rows_of(begin, min(begin + 10, steps)), own)
    record.flush()
    return record


def test_what_was_written_comes_back(tmp_path):
    record = written(tmp_path, 20, [3, 4])
    record.report({"verdict": "old"})
    record.report({"verdict": "new"})
    run = load(tmp_path)
    assert run.name == tmp_path.name and run.directory == str(tmp_path)
    assert run.steps.tolist() == list(range(20)) and run.steps.dtype == "int64"
    np.testing.assert_array_equal(run["b"], np.float32(run.steps + 0.1))
    assert run.variables == ("a", "b") and run.norms.dtype == "float32"
    np.testing.assert_array_equal(run.global_norm, run.steps)
    assert np.isnan(run.scalars["limit_loss"]).all() and run.applied.all()
    steps, values = run.statistics["weight_norm"]
    assert steps.tolist() == list(range(20)) and (values == 5).all()
    assert set(run.statistics) == {"nonfinite_count", "weight_norm"}
    assert run.events == [event(3), event(4)]
    assert run.report == {"verdict": "new"} and run.status is None
    assert repr(run) == (
        f"<Run {tmp_path.name!r}: 20 steps of 2 variables, up to step 19, 2 events>"
    )
    with pytest.raises(KeyError, match="'c'; there are: a, b"):
        run["c"]


def histograms(steps, names=("b",)):
    """Histograms of some variables whose first count is the step."""
    for step in steps:
        values = np.ones((len(names), record_file.HISTOGRAM), "float32")
        values[:, 0] = step
        yield step, names, values


def test_histograms_come_back(tmp_path):
    record = Record(tmp_path)
    record.begin(0)
    for begin, found in enumerate(histograms((0, 0, 20))):
        record.add(rows_of(10 * begin, 10 * begin + 10), [], found)
    record.flush()
    record.add(rows_of(30, 40, ("c",)), [], *histograms([30], ("c",)))
    record.flush()
    found = load(tmp_path).histograms
    assert list(found) == [0, 20, 30]
    assert found[20].shape == (3, record_file.HISTOGRAM)
    assert found[20][1].tolist() == [20, *[1] * 31]
    assert np.isnan(found[20][[0, 2]]).all() and found[30][2, 0] == 30


def test_of_many_histograms_some_stay(tmp_path):
    record = Record(tmp_path)
    record.begin(0)
    for begin, found in enumerate(histograms(range(100))):
        record.add(rows_of(begin, begin + 1), [], found)
        record.flush()
    steps = list(load(tmp_path).histograms)
    assert 10 <= len(steps) <= 20 and steps[0] == 0 and steps[-1] == 99
    assert len(record_file.read(record.path).histograms) <= 31


@pytest.mark.parametrize("last", ["rows", "events", "report"])
def test_an_unfinished_block_at_the_end_is_ignored(last, tmp_path):
    """Whatever the byte in which the process was killed."""
    record = written(tmp_path, 10)
    size = os.path.getsize(record.path)
    if last == "report":
        record.report({"verdict": "\n"})
    else:
        record.add(rows_of(10, 12), [event(11)] if last == "events" else [])
        record.flush()
    with open(record.path, "rb") as file:
        data = file.read()
    whole = {"rows": 12, "events": 12, "report": 10}[last]
    for end in range(size, len(data)):
        with open(record.path, "wb") as file:
            file.write(data[:end])
        contents = record_file.read(record.path)
        assert len(contents.rows) in {10, whole}
        assert not contents.events and contents.report is None
    assert len(data) - size > 20


def test_a_process_that_goes_on_drops_what_is_unfinished(tmp_path):
    path = written(tmp_path, 20, [3, 12]).path
    with open(path, "ab") as file:
        file.write(b'{"rows": 3, "bytes": 1000}\nabc')
    record = Record(tmp_path)
    record.begin(10, resumed=True)
    record.add(rows_of(10, 15), [])
    record.flush()
    run = load(tmp_path)
    assert run.steps.tolist() == list(range(15))
    assert run.events == [event(3)]
    steps, _ = run.statistics["weight_norm"]
    assert (np.diff(steps) > 0).all() and steps[-1] < 15


def test_a_new_run_replaces_the_old_one(tmp_path):
    written(tmp_path, 20, [3])
    record = Record(tmp_path)
    record.begin(5)
    record.add(rows_of(5, 8, ["c"]), [])
    record.flush()
    run = load(tmp_path)
    assert run.steps.tolist() == [5, 6, 7] and run.variables == ("c",)
    assert not run.events


@pytest.mark.parametrize("taken", ["removed", "replaced"])
def test_a_file_that_somebody_takes_away(taken, tmp_path):
    record = written(tmp_path, 10)
    if taken == "removed":
        os.remove(record.path)
    else:
        other = Record(tmp_path)
        other.begin(0)
        other.add(rows_of(0, 3, ["c"]), [])
        other.flush()
    record.add(rows_of(10, 12), [])
    record.flush()
    assert load(tmp_path).steps.tolist() == [10, 11]


def test_a_full_disk_leaves_no_half_block(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            raise OSError("no space left on device")

    record = written(tmp_path, 10)
    record.add(rows_of(10, 12), [])
    with monkeypatch.context() as context:
        context.setattr("keras_gradwatch.records.record.open", Full, raising=False)
        with pytest.raises(OSError, match="no space"):
            record.flush()
    assert load(tmp_path).steps.tolist() == list(range(10))
    record.begin(12)  # the next `fit`, when there is space again
    assert load(tmp_path).steps.tolist() == list(range(12))


def test_rows_come_once_whoever_hands_them_in(tmp_path):
    record = written(tmp_path, 10)
    record.add(rows_of(5, 10), [event(5)])
    record.flush()
    assert load(tmp_path).steps.tolist() == list(range(10))
    assert not load(tmp_path).events


def test_other_variables_are_added(tmp_path):
    record = written(tmp_path, 10)
    record.add(rows_of(10, 12, ["c", "b"]), [])
    record.add(rows_of(12, 14, ["b"]), [])
    record.flush()
    run = load(tmp_path)
    assert run.variables == ("a", "b", "c")
    known = ~np.isnan(run.norms)
    assert known[:10].all(axis=0).tolist() == [True, True, False]
    assert known[10:12].tolist() == [[False, True, True]] * 2
    assert known[12:].tolist() == [[False, True, False]] * 2
    np.testing.assert_array_equal(run["c"][10:12], [10, 11])
    np.testing.assert_allclose(run["b"][10:12], [10.1, 11.1], 1e-6)


def test_a_gradient_that_is_not_finite_is_infinite(tmp_path):
    rows = rows_of(0, 3)
    rows.statistic("norm")[1:] = np.nan
    rows.statistic("nonfinite_count")[1, 0] = 2
    record = Record(tmp_path)
    record.begin(0)
    record.add(rows, [])
    record.flush()
    run = load(tmp_path)
    nan = np.nan
    np.testing.assert_array_equal(
        run.norms, np.float32([[0, 0.1], [np.inf, nan], [nan, nan]])
    )


def test_a_long_run_is_thinned_out(tmp_path):
    record = Record(tmp_path)
    record.begin(0)
    sizes = []
    for begin in range(0, 20_000, 100):
        events = [event(5_000)] if begin == 5_000 else []
        record.add(rows_of(begin, begin + 100), events)
        record.report({"long": "x" * 5000})
        sizes.append(os.path.getsize(record.path))
    # A row takes 72 bytes, a sample 24.
    assert max(sizes) < 3000 * 72 + 750 * 24 + 500_000 + 50_000
    run = load(tmp_path)
    steps = set(run.steps.tolist())
    assert len(steps) <= 2000
    assert set(range(4950, 5051)) | set(range(19_800, 20_000)) | {0} <= steps
    np.testing.assert_array_equal(run["a"], run.steps)
    sampled, _ = run.statistics["weight_norm"]
    assert len(sampled) <= 500 and {5_000, 5_001, 5_002} <= set(sampled.tolist())
    assert np.diff(sampled).max() <= 256


def test_of_many_events_the_first_and_the_last_stay(tmp_path):
    record = written(tmp_path, 3000, range(3000))
    assert os.path.getsize(record.path) < 1_000_000
    run = load(tmp_path)
    steps = [e.step for e in run.events]
    assert len(steps) <= 1000 and steps == sorted(steps)
    assert steps[:500] == list(range(500)) and steps[-100:] == list(range(2900, 3000))


HEADER = {"format": record_file.FORMAT, "version": 1, "variables": ["a"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "of a run: its first line is not JSON"),
        (b'{"format": "another"}\n', "not the record of a run"),
        (b"[1]\n", "not the record of a run"),
        (json.dumps(HEADER).encode()[:30], "not the record of a run"),
        ({**HEADER, "version": 7}, "has version 7 of the format"),
        ({**HEADER, "scalars": None}, "'scalars' must be a list of names"),
        ({**HEADER, "variables": [1]}, "'variables' must be a list of names"),
    ],
)
def test_what_is_no_record(content, words, tmp_path):
    if isinstance(content, dict):
        content = json.dumps(content).encode() + b"\n"
    (tmp_path / "record.gwr").write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        load(tmp_path)
    assert str(tmp_path / "record.gwr") in str(error.value)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (b"nonsense\n", "Expecting value"),
        (b"\xff\xfe\n", "decode"),
        (b"[1]\n", "a line must be a dict"),
        (b'{"rows": 1, "bytes": -3}\n', "`bytes` must be an integer"),
        (
            b'{"rows": 3, "bytes": 4}\nabcd',
            "expected 3 items of 72 bytes, found 4 bytes",
        ),
        (b'{"rows": "x", "bytes": 4}\nabcd', "expected x items of 72 bytes"),
        (b'{"samples": 1, "bytes": 4}\nabcd', "statistics"),
        (b'{"events": [{"step": 1}]}\n', "missing"),
        (b'{"report": 3}\n', "not iterable"),
    ],
)
def test_damage_is_named(block, words, tmp_path):
    path = written(tmp_path, 10).path
    size = os.path.getsize(path)
    with open(path, "ab") as file:
        file.write(block + b'{"events": []}\n')
    with pytest.raises(ValueError, match=words) as error:
        load(tmp_path)
    assert f"is damaged at byte {size:,} of" in str(error.value)
    # A run that goes on begins a new record.
    Record(tmp_path).begin(10, resumed=True)
    assert not os.path.exists(path)


def test_steps_that_do_not_ascend(tmp_path):
    path = written(tmp_path, 10).path
    with open(path, "rb") as file:
        data = file.read()
    block = data.index(b"\n") + 1
    with open(path, "ab") as file:
        file.write(data[block:])
    with pytest.raises(ValueError, match="not in ascending order"):
        load(tmp_path)


def test_a_reader_ignores_what_it_does_not_know(tmp_path):
    """Of a later version that has added something."""
    path = written(tmp_path, 3).path
    with open(path, "rb") as file:
        line, rest = file.read().split(b"\n", 1)
    header = json.loads(line)
    header["extra"] = 1
    header["scalars"][-1] = "limit_of_something"
    with open(path, "wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.write(b'{"notes": 1, "bytes": 2}\n\n\n' + rest)
    run = load(tmp_path)
    assert run.steps.tolist() == [0, 1, 2]
    assert np.isnan(run.scalars["limit_loss"]).all()
    assert "limit_of_something" not in run.scalars
