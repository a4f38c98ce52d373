"""What a run leaves on disk, and how soon it can be seen.

Bytes a point are those of the event file that a real `fit` wrote. Then a log of many
variables and steps is written by the package's own writer, from generated rows, and
opened with a real TensorBoard: from its start until it answers with the last step. The
record of a run is written from generated rows, too, and read with
`keras_gradwatch.load`.

    python benchmarks/logsize.py [--variables 1000] [--steps 10000]
        [--update-freq 50 10] [--record-steps 100000] [--out docs/benchmarks]

It takes a few minutes. With `--update-freq 1` every step is a point: that log is more
than 5 GB, and writing it takes half an hour.
"""

import argparse
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

import keras
import numpy as np
import timing
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto import event_pb2

import keras_gradwatch
from keras_gradwatch.callbacks import GradientTensorBoard
from keras_gradwatch.records.events import Event
from keras_gradwatch.records.record import Record
from keras_gradwatch.records.rows import SCALARS, Layout
from keras_gradwatch.statistics.names import ALWAYS, NAMES, OF_UPDATES
from keras_gradwatch.tensorboard import tags
from keras_gradwatch.tensorboard.log import GradientLog
from keras_gradwatch.tensorboard.points import Points

FRAME = 16  # bytes that an event file needs for each record beside its content
PATIENCE = 1200  # seconds until TensorBoard is given up


def event_file(folder):
    (path,) = pathlib.Path(folder).rglob("events.out.tfevents.*")
    return path


# -- Bytes a point ---------------------------------------------------------------------


def points(path):
    """Sizes in bytes of the records with scalars in an event file, a list."""
    sizes = []
    for record in RawEventFileLoader(str(path)).Load():
        values = event_pb2.Event.FromString(record).summary.value
        if any(value.tag == tags.GRAD_NORM for value in values):
            sizes.append(len(record) + FRAME)
    return sizes


def dense(layers):
    """A compiled model of that many Dense layers: two variables each."""
    stack = [keras.layers.Dense(8) for _ in range(layers)]
    model = keras.Sequential([keras.Input((8,)), *stack])
    model.compile(keras.optimizers.SGD(1e-4), "mse")
    return model


def measured(title, layers, steps, **options):
    """A row about the file that one `fit` writes."""
    x = np.random.default_rng(0).normal(size=(steps, 8)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        board = GradientTensorBoard(folder, **options)
        dense(layers).fit(x, x, batch_size=1, verbose=0, callbacks=[board])
        path = event_file(folder)
        sizes, whole = points(path), path.stat().st_size
    # The first point also describes its tags.
    row = [title, f"{len(sizes):,}", f"{np.median(sizes[1:]):,.0f}"]
    return [*row, f"{sum(sizes):,}", f"{whole - sum(sizes):,}"]


# -- Opening a large log ---------------------------------------------------------------


def names_of(variables):
    """Names as those of a deep network."""
    return tuple(
        f"model/block_{i // 2}/dense/{['kernel', 'bias'][i % 2]}"
        for i in range(variables)
    )


def generated(names, steps, statistics=NAMES):
    """`Rows` of healthy steps, with some statistics of every variable."""
    layout = Layout(names, statistics, sizes=(1,) * len(names))
    random = np.random.default_rng(steps[0])
    rows = random.lognormal(size=(len(steps), layout.width)).astype("float32")
    rows[:, : len(SCALARS)] = 1.0
    for name in ("outcome", "clipped", "held", "halted", "nonfinite"):
        rows[:, SCALARS.index(name)] = 0.0
    return layout.unpack(steps, rows)


def write_log(folder, variables, steps, update_freq):
    """Writes a log of generated rows, 50 at a time as `fit` drains them.

    Returns:
        `(seconds that the writer took, names of the variables)`.
    """
    names = names_of(variables)
    log, seconds = GradientLog(folder, Points(update_freq, True), 0, None), 0.0
    log.begin(0)
    for first in range(0, steps, 50):
        rows = generated(names, np.arange(first, min(first + 50, steps)))
        begin = time.perf_counter()
        log.write(rows, [])
        seconds += time.perf_counter() - begin
    begin = time.perf_counter()
    log.heatmap(steps - 1)
    log.close()
    return seconds + time.perf_counter() - begin, names


class TensorBoard:
    """A TensorBoard of its own process that shows one directory."""

    def __init__(self, folder):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}/data/"
        arguments = ["--logdir", str(folder), "--host", "127.0.0.1", "--port", port]
        self._begin = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tensorboard.main", *map(str, arguments)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        # An environment's proxy does not lead to this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask(self, route, **query):
        """The answer to a request, or None where there is none yet."""
        url = f"{self._url}{route}?{urllib.parse.urlencode(query)}"
        try:
            with self._opener.open(url, timeout=60) as answer:
                return json.loads(answer.read())
        except (urllib.error.URLError, ConnectionError):
            return None

    def wait(self, answers):
        """Seconds from the start until `answers()` is true."""
        while not answers():
            seconds = time.perf_counter() - self._begin
            if seconds > PATIENCE or self._process.poll() is not None:
                raise RuntimeError("TensorBoard does not show the log")
            time.sleep(0.05)
        return time.perf_counter() - self._begin

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=30)


def opened(folder, tag, step):
    """Starts TensorBoard on a directory.

    Returns:
        Seconds `(until it answers at all, until it shows `step` of `tag`, that one
        request for all tags takes then, for the points of one tag)`.
    """
    server = TensorBoard(folder)

    def last_step():
        shown = server.ask("plugin/scalars/scalars", run="gradwatch", tag=tag)
        return shown and shown[-1][1] == step

    def seconds(route, **query):
        begin = time.perf_counter()
        assert server.ask(route, **query)
        return time.perf_counter() - begin

    try:
        up = server.wait(lambda: server.ask("environment"))
        there = server.wait(last_step)
        every = seconds("plugin/timeseries/tags")
        one = seconds("plugin/scalars/scalars", run="gradwatch", tag=tag)
    finally:
        server.stop()
    return up, there, every, one


def large(variables, steps, update_freq):
    """A row about a large log: what it takes to write and to open it."""
    with tempfile.TemporaryDirectory() as folder:
        seconds, names = write_log(folder, variables, steps, update_freq)
        size = event_file(folder).stat().st_size
        sections = tags.sections(names, [1] * len(names))
        tag = tags.variable(sections, names[-1], NAMES[0])
        # The last step is written when the log is closed.
        up, there, every, one = opened(folder, tag, steps - 1)
    written = 1e6 * seconds / steps
    return [
        f"{variables:,}",
        f"{steps:,}",
        update_freq,
        f"{size / 1e6:,.1f}",
        f"{written:,.0f}",
        f"{up:.1f}",
        f"{there:.1f}",
        f"{every:.2f}",
        f"{one:.2f}",
    ]


# -- The record ------------------------------------------------------------------------


def record(variables, steps, drained):
    """A row about the record of a run: what it takes to write and to read it.

    Args:
        variables: Number of variables.
        steps: Number of steps.
        drained: How many of them are read from the ring at a time.
    """
    names = names_of(variables)
    # The updates are measured in every 50th step. One of a hundred drains has an event.
    rows = generated(names, np.arange(drained), ALWAYS)
    with tempfile.TemporaryDirectory() as folder:
        writer, times = Record(folder), []
        writer.begin(0)
        for first in range(0, steps, drained):
            new = rows.layout.unpack(rows.steps + first, _packed(rows))
            if first % 50 == 0:
                for name in OF_UPDATES:
                    new.add(name, 0, slice(None), 0.1)
            message = f"step {first}: gradient norm 10 against 1; skipped"
            event = Event(first, "z_score", None, 10.0, 1.0, "skipped", message)
            begin = time.perf_counter()
            writer.add(new, [event] if first % (100 * drained) == 0 else [])
            times.append(time.perf_counter() - begin)
        writer.flush()
        size = pathlib.Path(writer.path).stat().st_size
        begin = time.perf_counter()
        run = keras_gradwatch.load(folder)
        seconds = time.perf_counter() - begin
    return [
        f"{variables:,}",
        f"{steps:,}",
        drained,
        f"{1e6 * sum(times) / steps:,.1f}",
        f"{1e3 * max(times):,.0f}",
        f"{size / 1e6:,.1f}",
        f"{seconds:.2f}",
        f"{len(run.steps):,}",
    ]


def _packed(rows):
    """The rows as the ring has them."""
    parts = rows.applications, rows.recorded
    return np.hstack([part.reshape(len(rows), -1) for part in parts])


def main(given=None):
    """Measures all of it, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--variables", type=int, default=1000)
    add("--steps", type=int, default=10_000)
    add("--update-freq", type=int, nargs="+", default=[50, 10])
    add("--record-steps", type=int, default=100_000)
    add("--fit-steps", type=int, default=300, help="steps of the real fits")
    add("--fit-variables", type=int, default=100, help="an even number")
    add("--out", type=pathlib.Path, help="folder for logsize.md")
    arguments = parser.parse_args(given)
    count = arguments.fit_variables
    cases = {
        "global only": (1, {}),
        f"{count} variables, `per_variable=True`": (count // 2, {"per_variable": True}),
    }
    sizes = [
        measured(
            f"{title}, `update_freq={freq}`", layers, steps, update_freq=freq, **options
        )
        for title, (layers, options) in cases.items()
        for freq, steps in ((1, arguments.fit_steps), (50, 50 * 4))
    ]
    logs = [
        large(arguments.variables, arguments.steps, freq)
        for freq in arguments.update_freq
    ]
    steps = arguments.record_steps
    records = [
        record(variables, count, drained)
        for variables in (20, arguments.variables)
        for count, drained in ((min(steps, 2000), 1), (steps, 50))
    ]
    page = [
        "# Size of the logs",
        "",
        *timing.measured("logsize.py", given),
        "## Bytes",
        "",
        "Size of the event file of one `fit`. A point of a variable consists of nine",
        "scalars, and most of its bytes are their names.",
        "",
        *timing.table(
            [
                "log",
                "points",
                "bytes per point",
                "bytes of all points",
                "bytes per `fit`",
            ],
            sizes,
        ),
        "",
        "## Opening a large log in TensorBoard",
        "",
        "The logs contain eight statistics of each variable (`per_variable=True`),",
        "from generated rows. The first times are measured from the start of",
        "TensorBoard: until it responds, and until it shows the last step of the last",
        "variable. The other two are the time to return the list of all tags, and the",
        "points of one.",
        "",
        *timing.table(
            [
                "variables",
                "steps",
                "`update_freq`",
                "MB",
                "writing, µs per step",
                "up after, s",
                "all shown after, s",
                "list of tags, s",
                "one tag, s",
            ],
            logs,
        ),
        "",
        "## The record of a run",
        "",
        "`record.gwr` is written from generated rows, which are read one at a time,",
        "as in the first 100 steps and after each event, or 50 at a time. The longest",
        "write is one that thins the file out. `keras_gradwatch.load` reads the file.",
        "",
        *timing.table(
            [
                "variables",
                "steps",
                "read at a time",
                "writing, µs per step",
                "longest, ms",
                "MB",
                "`load`, s",
                "steps kept",
            ],
            records,
        ),
    ]
    timing.write(arguments.out, timing.file_stem("logsize"), page)


if __name__ == "__main__":
    main()
