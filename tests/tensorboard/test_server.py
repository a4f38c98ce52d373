"""A real TensorBoard, with each of its two loaders, is asked what it shows."""

import io
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import numpy as np
import pytest
import tensorboard_data_server
from PIL import Image

from keras_gradwatch.records.events import Event
from keras_gradwatch.reports.report import Report
from keras_gradwatch.tensorboard import EventWriter, scalars_layout, tags
from keras_gradwatch.tensorboard.events import as_markdown

# The loader is what is tested; TensorFlow would only make the server start later.
SERVE = """
import sys
sys.modules["tensorflow"] = None
from tensorboard.main import run_main
run_main()
"""
SECTIONS = tags.sections(["dense/kernel"], [8])
HISTOGRAM = tags.variable(SECTIONS, "dense/kernel", "gradient")
NORM = tags.variable(SECTIONS, "dense/kernel", "norm")


EVENT = Event(3, "nonfinite", None, 4.0, 0.0, "skipped", "step 3: 4 values; skipped")
REPORT = Report("It exploded.\nFix: do this.\n  a  b\nk  1  2", "It exploded.")


def _write_runs(log_dir):
    writer = EventWriter(log_dir / "run", 0)
    writer.layout(scalars_layout())
    for step in range(5):
        writer.scalars(step, dict.fromkeys((*tags.SCALARS, NORM), step / 2))
    writer.histogram(HISTOGRAM, 3, [1, 2], [-1.0, 0.0, 1.0])
    writer.image(tags.HEATMAP, 3, np.zeros((6, 4, 3), np.uint8))
    writer.text(tags.EVENTS, 3, as_markdown([EVENT], 2))
    writer.text(tags.REPORT, 3, REPORT.to_markdown())
    writer.close()
    for first_step, value in ((0, 1.0), (3, 2.0)):
        writer = EventWriter(log_dir / "resumed", first_step)
        for step in range(first_step, first_step + 5):
            writer.scalars(step, {tags.LOSS: value, tags.GRAD_NORM: value})
        writer.close()
        # Crashed at step 4 of the first file: what had no more points in the second
        # file is purged as well.


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class _Server:
    def __init__(self, log_dir, load_fast):
        self.url = f"http://127.0.0.1:{_free_port()}/data/plugin/"
        port = urllib.parse.urlsplit(self.url).port
        arguments = {
            "logdir": log_dir,
            "host": "127.0.0.1",
            "port": port,
            "load_fast": load_fast,
            "reload_interval": 1,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVE]
            + [f"--{name}={value}" for name, value in arguments.items()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # An environment's proxy does not lead to this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, route, **query):
        url = f"{self.url}{route}?{urllib.parse.urlencode(query)}"
        with self._opener.open(url, timeout=5) as answer:
            return answer.read()

    def ask(self, route, **query):
        return json.loads(self.read(route, **query))

    def wait(self, runs):
        """Waits until the server is up and has read both runs."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                found = self.ask("scalars/tags")
                if set(found) == runs and "run" in self.ask("text/tags"):
                    return
            except (urllib.error.URLError, ConnectionError):
                pass
            time.sleep(0.1)
        raise AssertionError("TensorBoard did not show the runs")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=10)


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    log_dir = tmp_path_factory.mktemp("logs")
    _write_runs(log_dir)
    loaders = {"python": "false"}
    if tensorboard_data_server.server_binary() is not None:
        loaders["fast"] = "true"
    servers = {name: _Server(log_dir, flag) for name, flag in loaders.items()}
    try:
        for server in servers.values():
            server.wait({"run", "resumed"})
        yield servers
    finally:
        for server in servers.values():
            server.stop()


@pytest.fixture(params=["python", "fast"])
def server(servers, request):
    if request.param not in servers:
        pytest.skip("this platform has no fast loader")
    return servers[request.param]


def test_scalars(server):
    shown = server.ask("scalars/tags")
    assert set(shown["run"]) == {*tags.SCALARS, NORM}
    assert set(shown["resumed"]) == {tags.LOSS, tags.GRAD_NORM}
    for tag in (tags.GRAD_NORM, NORM):
        points = server.ask("scalars/scalars", run="run", tag=tag)
        assert [point[1:] for point in points] == [[s, s / 2] for s in range(5)]


def test_a_resumed_run_shows_each_step_once(server):
    for tag in (tags.LOSS, tags.GRAD_NORM):
        points = server.ask("scalars/scalars", run="resumed", tag=tag)
        assert [point[1:] for point in points] == [
            [step, 1.0 if step < 3 else 2.0] for step in range(8)
        ]


def test_histogram(server):
    assert set(server.ask("histograms/tags")["run"]) == {HISTOGRAM}
    ((_, step, rows),) = server.ask("histograms/histograms", run="run", tag=HISTOGRAM)
    assert (step, rows) == (3, [[-1.0, 0.0, 1.0], [0.0, 1.0, 2.0]])


def test_image(server):
    assert set(server.ask("images/tags")["run"]) == {tags.HEATMAP}
    (shown,) = server.ask("images/images", run="run", tag=tags.HEATMAP, sample=0)
    assert shown["step"] == 3
    query = dict(urllib.parse.parse_qsl(shown["query"]))
    png = server.read("images/individualImage", **query)
    assert Image.open(io.BytesIO(png)).size == (4, 6)


def test_text(server):
    assert set(server.ask("text/tags")["run"]) == {tags.EVENTS, tags.REPORT}
    (shown,) = server.ask("text/text", run="run", tag=tags.EVENTS)
    assert shown["step"] == 3
    assert "<h3>Epoch 2, step 3</h3>" in shown["text"]
    item = "<li><strong>nonfinite</strong>: 4 values. <em>Skipped.</em></li>"
    assert item in shown["text"]
    (shown,) = server.ask("text/text", run="run", tag=tags.REPORT)
    assert "<h3>It exploded.</h3>" in shown["text"]
    assert "<li><strong>Fix</strong>: do this.</li>" in shown["text"]
    assert "<pre><code>  a  b\nk  1  2\n</code></pre>" in shown["text"]


def test_layout(server):
    (category,) = server.ask("custom_scalars/layout")["category"]
    assert category["title"] == "keras_gradwatch"
    pattern = category["chart"][0]["multiline"]["tag"][0]
    answer = server.ask("custom_scalars/scalars", run="run", tag=pattern)
    found = set(answer["tag_to_events"])
    assert answer["regex_valid"] and found == {tags.GRAD_NORM_LOG10}
