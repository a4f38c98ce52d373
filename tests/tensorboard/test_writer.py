import io
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import plugin_event_accumulator
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.util import tensor_util

from keras_gradwatch.tensorboard import EventWriter, scalars_layout, tags

ROOT = pathlib.Path(__file__).parents[2]

# The whole package imports Keras, and so TensorFlow: a process that asks about this
# part of it alone gets a bare parent.
PREAMBLE = f"""
import sys, types
package = types.ModuleType("keras_gradwatch")
package.__path__ = [{str(ROOT / "keras_gradwatch")!r}]
sys.modules["keras_gradwatch"] = package
"""


def _events(path):
    return [event_pb2.Event.FromString(raw) for raw in RawEventFileLoader(path).Load()]


def _accumulate(log_dir):
    accumulator = EventAccumulator(str(log_dir), size_guidance={"tensors": 0})
    return accumulator.Reload()


def _series(accumulator, tag):
    return [
        (event.step, tensor_util.make_ndarray(event.tensor_proto))
        for event in accumulator.Tensors(tag)
    ]


@pytest.fixture
def writer(tmp_path):
    writer = EventWriter(tmp_path, 0)
    yield writer
    writer.close()


def test_scalars_come_back(tmp_path, writer):
    for step in range(3):
        values = {tag: 10 * step + i for i, tag in enumerate(tags.SCALARS)}
        writer.scalars(step, values)
    writer.flush()
    accumulator = _accumulate(tmp_path)
    assert set(accumulator.Tags()["tensors"]) == set(tags.SCALARS)
    for i, tag in enumerate(tags.SCALARS):
        assert _series(accumulator, tag) == [(0, i), (1, 10 + i), (2, 20 + i)]
        metadata = accumulator.SummaryMetadata(tag)
        assert metadata.plugin_data.plugin_name == "scalars"
        assert metadata.data_class == summary_pb2.DATA_CLASS_SCALAR


def test_scalars_of_a_step_are_one_record_and_metadata_comes_once(writer):
    writer.scalars(5, {"a": 1.0, "b": 2.0})
    writer.scalars(6, {"a": 3.0, "c": 4.0})
    writer.flush()
    _, _, first, second = _events(writer.path)
    assert (first.step, second.step) == (5, 6) and first.wall_time > 1e9
    described = [
        [(value.tag, value.HasField("metadata")) for value in event.summary.value]
        for event in (first, second)
    ]
    assert described == [
        [("a", True), ("b", True)],
        [("a", False), ("c", True)],
    ]


def test_a_logged_step_is_small(writer):
    values = dict.fromkeys(tags.SCALARS, 0.1)
    writer.scalars(1000, values)
    writer.flush()
    before = pathlib.Path(writer.path).stat().st_size
    for step in range(1001, 1011):
        writer.scalars(step, values)
    writer.flush()
    assert pathlib.Path(writer.path).stat().st_size - before <= 10 * 42 * len(
        tags.SCALARS
    )


def test_scalars_of_every_kind(tmp_path, writer):
    values = {
        "bool": True,
        "numpy": np.float64(0.25),
        "array": np.array(0.5, np.float32),
        "nan": float("nan"),
        "inf": float("inf"),
        "beyond float32": 1e300,
        "tiny": 1e-300,
    }
    writer.scalars(0, values)
    writer.flush()
    accumulator = _accumulate(tmp_path)
    read = {tag: float(_series(accumulator, tag)[0][1]) for tag in values}
    assert np.isnan(read.pop("nan"))
    assert read == {
        "bool": 1.0,
        "numpy": 0.25,
        "array": 0.5,
        "inf": np.inf,
        "beyond float32": np.inf,
        "tiny": 0.0,
    }


def test_histogram_comes_back_as_left_right_count(tmp_path, writer):
    tag = "gradwatch_layer_01_dense/kernel/gradient"
    writer.histogram(tag, 4, np.array([3, 0, 2**24 + 1]), [-1.0, 0.0, 0.5, 2.0])
    writer.flush()
    accumulator = _accumulate(tmp_path)
    ((step, rows),) = _series(accumulator, tag)
    assert step == 4
    np.testing.assert_array_equal(
        rows, [[-1.0, 0.0, 3], [0.0, 0.5, 0], [0.5, 2.0, 2**24 + 1]]
    )
    metadata = accumulator.SummaryMetadata(tag)
    assert metadata.plugin_data.plugin_name == "histograms"
    assert metadata.data_class == summary_pb2.DATA_CLASS_TENSOR


def test_image_comes_back_in_256_colours(tmp_path, writer):
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    writer.image(tags.HEATMAP, 2, rgb)
    writer.flush()
    accumulator = _accumulate(tmp_path)
    ((step, (width, height, png)),) = _series(accumulator, tags.HEATMAP)
    assert (step, width, height) == (2, b"7", b"5")
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    np.testing.assert_allclose(shown, rgb.astype(float), atol=16)
    metadata = accumulator.SummaryMetadata(tags.HEATMAP)
    assert metadata.plugin_data.plugin_name == "images"
    assert metadata.data_class == summary_pb2.DATA_CLASS_BLOB_SEQUENCE


def test_text_comes_back(tmp_path, writer):
    writer.text(tags.EVENTS, 3, "**step 3**: ‖g‖ = 1e9")
    writer.flush()
    accumulator = _accumulate(tmp_path)
    ((step, text),) = _series(accumulator, tags.EVENTS)
    assert (step, text.item().decode()) == (3, "**step 3**: ‖g‖ = 1e9")
    metadata = accumulator.SummaryMetadata(tags.EVENTS)
    assert metadata.plugin_data.plugin_name == "text"
    assert metadata.data_class == summary_pb2.DATA_CLASS_TENSOR


def test_layout_comes_back(tmp_path, writer):
    writer.layout(scalars_layout())
    writer.flush()
    accumulator = _accumulate(tmp_path)
    ((_, content),) = _series(accumulator, "custom_scalars__config__")
    assert layout_pb2.Layout.FromString(content.item()) == scalars_layout()
    metadata = accumulator.SummaryMetadata("custom_scalars__config__")
    assert metadata.plugin_data.plugin_name == "custom_scalars"
    assert metadata.data_class == summary_pb2.DATA_CLASS_TENSOR


@pytest.mark.parametrize("first_step", [0, 41, np.int64(2**40)])
def test_every_file_opens_with_its_version_and_a_start(tmp_path, first_step):
    # Read before close and without a flush of ours: the head is there at once.
    writers = [EventWriter(tmp_path, first_step) for _ in range(2)]
    for writer in writers:
        version, start = _events(writer.path)
        assert version.file_version == "brain.Event:2"
        assert start.session_log.status == event_pb2.SessionLog.START
        assert start.step == first_step
        writer.close()


def test_resuming_earlier_purges_the_overlap(tmp_path):
    for first_step, value in ((0, 1.0), (6, 2.0), (3, 3.0)):
        writer = EventWriter(tmp_path, first_step)
        for step in range(first_step, first_step + 6):
            writer.scalars(step, {"a": value})
        writer.close()
    # The accumulator of the server: the other one never purges tensors.
    accumulator = plugin_event_accumulator.EventAccumulator(
        str(tmp_path), size_guidance={"tensors": 0}
    ).Reload()
    steps = [(step, float(value)) for step, value in _series(accumulator, "a")]
    assert steps == [(s, 1.0) for s in range(3)] + [(s, 3.0) for s in range(3, 9)]


def test_writers_opened_together_have_files_of_their_own_in_order(tmp_path):
    writers = [EventWriter(tmp_path, 0) for _ in range(20)]
    for i, writer in enumerate(writers):
        writer.scalars(i, {"a": i})
        writer.close()
    paths = [writer.path for writer in writers]
    assert len(set(paths)) == 20
    # TensorBoard reads by name: a later file must come later.
    assert paths == sorted(paths)
    assert sorted(str(path) for path in tmp_path.iterdir()) == paths
    for i, path in enumerate(paths):
        assert [event.step for event in _events(path)] == [0, 0, i]


def test_files_of_one_tick_of_a_coarse_clock_are_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    writers = [EventWriter(tmp_path, 0) for _ in range(120)]
    for writer in writers:
        writer.close()
    paths = [writer.path for writer in writers]
    assert len(set(paths)) == 120 and paths == sorted(paths)


def test_a_process_that_follows_in_the_same_second_is_in_order(tmp_path, monkeypatch):
    paths = []
    for tick, process in enumerate((9, 10)):
        now = 1_700_000_000_000_000_000 + tick
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        monkeypatch.setattr(os, "getpid", lambda process=process: process)
        writer = EventWriter(tmp_path, 0)
        writer.close()
        paths.append(writer.path)
    assert paths == sorted(paths)


def test_flush_reaches_a_reader_while_the_file_is_open(writer):
    writer.scalars(1, {"a": 1.0})
    assert len(_events(writer.path)) == 2
    writer.flush()
    assert len(_events(writer.path)) == 3


def test_flushed_events_outlive_a_killed_process(tmp_path):
    code = f"""{PREAMBLE}
import os
from keras_gradwatch.tensorboard import EventWriter
writer = EventWriter({str(tmp_path)!r}, 0)
writer.scalars(7, {{"a": 1.0}})
writer.flush()
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    (path,) = tmp_path.iterdir()
    assert [event.step for event in _events(str(path))] == [0, 0, 7]


def test_close_writes_the_rest_and_may_be_called_again(tmp_path):
    threads = threading.active_count()
    writer = EventWriter(tmp_path, 0)
    writer.scalars(1, {"a": 1.0})
    writer.close()
    writer.close()
    assert len(_events(writer.path)) == 3
    assert threading.active_count() == threads
    with pytest.raises(ValueError, match="closed"):
        writer.scalars(2, {"a": 1.0})


def test_a_forgotten_writer_closes_itself(tmp_path):
    writer = EventWriter(tmp_path, 0)
    writer.scalars(1, {"a": 1.0})
    path = writer.path
    del writer  # with a warning about an open file, this test would fail
    assert len(_events(path)) == 3


def test_makes_the_directory(tmp_path):
    for log_dir in (tmp_path / "a" / "b", str(tmp_path / "c d" / "é")):
        EventWriter(log_dir, 0).close()
        assert len(list(pathlib.Path(log_dir).iterdir())) == 1


@pytest.mark.parametrize("log_dir", ["", "a\0b"])
def test_refuses_what_is_no_local_path(tmp_path, monkeypatch, log_dir):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`log_dir` must be .*Received: ") as caught:
        EventWriter(log_dir, 0)
    assert repr(log_dir) in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_refuses_a_directory_that_cannot_be_made(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for log_dir in (file, file / "below"):
        with pytest.raises(ValueError, match="`log_dir` must be") as caught:
            EventWriter(log_dir, 0)
        assert isinstance(caught.value.__cause__, OSError)
        assert str(log_dir) in str(caught.value)


@pytest.mark.parametrize("tensorflow", ["blocked", "there"])
def test_tensorflow_is_not_imported(tmp_path, tensorflow):
    code = f"""{PREAMBLE}
import numpy as np
if {tensorflow == "blocked"}:
    sys.modules["tensorflow"] = None
from keras_gradwatch.tensorboard import EventWriter, render, scalars_layout, tags
writer = EventWriter({str(tmp_path)!r}, 0)
writer.scalars(0, {{tags.LOSS: 1.0}})
writer.histogram("h", 0, [1], [0.0, 1.0])
writer.image(tags.HEATMAP, 0, render(np.ones((2, 1)), ["a"], 0))
writer.text(tags.EVENTS, 0, "text")
writer.layout(scalars_layout())
writer.close()
assert sys.modules.get("tensorflow") is None
assert not any(name.startswith("tensorflow.") for name in sys.modules)
"""
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.iterdir()
    assert len(_events(str(path))) == 7
