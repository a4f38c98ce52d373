"""The file `record.gwr`: what a run leaves on disk, step by step.

The file begins with a line of JSON: `format`, `version`, the names of the V `variables`
and of the S `scalars`. Blocks follow. A block is a line of JSON and as many bytes as
its `bytes` says, little-endian:

| line | bytes |
|---|---|
| `{"rows": T, "bytes": N}` | T times: int64 step, float32 scalars [S], norms [V] |
| `{"samples": T, "statistics": [K names], "bytes": N}` | T times: int64 step, \
float32 [K, V] |
| `{"histogram": step, "bytes": N}` | float32 [V, 32]: the counts of 30 equal bins of \
the gradient, and the ends of the first and the last one |
| `{"events": [...]}` | none; `Event`s as dicts |
| `{"report": {...}}` | none; `Report.to_dict()`, the last one counts |

What a process that was killed left unfinished at the end is ignored, and so are blocks
of other kinds.
"""

import dataclasses
import json

import numpy as np

from keras_gradwatch.records import files
from keras_gradwatch.records.events import Event
from keras_gradwatch.records.rows import ADDED, SCALARS
from keras_gradwatch.records.thinning import chosen
from keras_gradwatch.statistics.names import NAMES

FORMAT, VERSION = "keras_gradwatch record", 1
COLUMNS = (*SCALARS, *ADDED)
STATISTICS = tuple(name for name in NAMES if name != "norm")
# Numbers of a histogram: bins, and two edges.
HISTOGRAM = 32


def limits(variables):
    """Returns what is left of a long run with so many variables, a dict of numbers."""
    samples = min(500, max(100, 100_000 // max(variables, 1)))
    return {"rows": 2000, "samples": samples, "events": 1000, "histograms": 20}


def row_type(variables, scalars):
    """Returns the dtype of a row of so many variables and scalars."""
    numbers = [("scalars", "<f4", (scalars,)), ("norms", "<f4", (variables,))]
    return np.dtype([("step", "<i8"), *numbers])


def sample_type(variables, statistics):
    """Returns the dtype of a sample of so many variables and statistics."""
    return np.dtype([("step", "<i8"), ("values", "<f4", (statistics, variables))])


@dataclasses.dataclass
class Contents:
    """The contents of a record.

    Attributes:
        variables: Tuple of V names.
        rows: Array [T] of `row_type(V, S)`, the scalars in `COLUMNS`.
        samples: Array [M] of `sample_type(V, 7)`, the statistics in `STATISTICS`.
        events: List of `Event`s.
        report: Dict, or None.
        histograms: Dict of step to an array [V, 32], ascending.
    """

    variables: tuple = ()
    rows: np.ndarray = dataclasses.field(default_factory=lambda: rows_of(0, 0))
    samples: np.ndarray = dataclasses.field(default_factory=lambda: samples_of(0, 0))
    events: list = dataclasses.field(default_factory=list)
    report: dict | None = None
    histograms: dict = dataclasses.field(default_factory=dict)

    def before(self, step):
        """Drops everything from `step` on."""
        self.rows = self.rows[self.rows["step"] < step]
        self.samples = self.samples[self.samples["step"] < step]
        self.events = [e for e in self.events if e.step < step]
        self.histograms = {s: h for s, h in self.histograms.items() if s < step}

    def widen(self, variables):
        """Adds variables, with NaN for what was recorded before."""
        names = tuple(dict.fromkeys((*self.variables, *variables)))
        places = [names.index(name) for name in self.variables]
        rows = rows_of(len(self.rows), len(names))
        samples = samples_of(len(self.samples), len(names))
        rows["step"], samples["step"] = self.rows["step"], self.samples["step"]
        rows["scalars"] = self.rows["scalars"]
        rows["norms"][:, places] = self.rows["norms"]
        samples["values"][:, :, places] = self.samples["values"]
        for step, before in self.histograms.items():
            self.histograms[step] = np.full((len(names), HISTOGRAM), np.nan, "<f4")
            self.histograms[step][places] = before
        self.variables, self.rows, self.samples = names, rows, samples

    def thin(self):
        """Thins out what exceeds `limits`; of events the first and the last stay."""
        most = limits(len(self.variables))
        events = np.unique(np.array([e.step for e in self.events], np.int64))
        norms = self.rows["scalars"][:, COLUMNS.index("global_norm")]
        rows = chosen(self.rows["step"], norms, events, most["rows"])
        # Sizes that descend, so that the first sample of each block is kept.
        order = -np.arange(len(self.samples))
        samples = chosen(self.samples["step"], order, events, most["samples"])
        self.rows, self.samples = self.rows[rows], self.samples[samples]
        steps = list(self.histograms)
        while len(steps) > most["histograms"]:
            steps = [*steps[:-1:2], steps[-1]]  # every other one, and the newest
        self.histograms = {step: self.histograms[step] for step in steps}
        if len(self.events) > most["events"]:
            half = most["events"] // 2
            self.events = self.events[:half] + self.events[-half:]


def rows_of(count, variables):
    """Returns `count` rows filled with NaN."""
    rows = np.zeros(count, row_type(variables, len(COLUMNS)))
    rows["scalars"], rows["norms"] = np.nan, np.nan
    return rows


def samples_of(count, variables):
    """Returns `count` samples filled with NaN."""
    samples = np.zeros(count, sample_type(variables, len(STATISTICS)))
    samples["values"] = np.nan
    return samples


# -- Writing ---------------------------------------------------------------------------


def header(variables):
    """Returns the first line of a file, bytes."""
    return _line(
        format=FORMAT, version=VERSION, variables=list(variables), scalars=COLUMNS
    )


def blocks(rows=(), samples=(), events=(), report=None, histograms=None):
    """Encodes the given data as blocks, bytes; arrays are as in `Contents`."""
    parts = []
    if len(rows):
        parts += [_line(rows=len(rows), bytes=rows.nbytes), rows.tobytes()]
    if len(samples):
        values = samples["values"]
        # Statistics that were not requested are not written.
        known = np.flatnonzero(~np.isnan(values).all(axis=(0, 2)))
        packed = np.empty(len(samples), sample_type(values.shape[2], len(known)))
        packed["step"], packed["values"] = samples["step"], values[:, known]
        names = [STATISTICS[k] for k in known]
        line = _line(samples=len(samples), statistics=names, bytes=packed.nbytes)
        parts += [line, packed.tobytes()]
    for step, values in (histograms or {}).items():
        values = np.asarray(values, "<f4")
        parts += [_line(histogram=step, bytes=values.nbytes), values.tobytes()]
    if events:
        parts.append(_line(events=[dataclasses.asdict(e) for e in events]))
    if report is not None:
        parts.append(_line(report=report))
    return b"".join(parts)


def write(path, contents):
    """Writes a whole file."""
    of = contents
    body = blocks(of.rows, of.samples, of.events, of.report, of.histograms)
    files.replace(path, header(contents.variables) + body)


def _line(**content):
    return json.dumps(content).encode() + b"\n"


# -- Reading ---------------------------------------------------------------------------


def read(path):
    """Reads a record; raises ValueError if it is none, or damaged before its end."""
    with open(path, "rb") as file:
        data = file.read()
    if not data:
        raise ValueError(f"{path!r} is empty: it is not the record of a run")
    variables, scalars, begin = _read_header(path, data)
    rows, samples, found = [], [], Contents(variables)
    while begin < len(data):
        try:
            block, content, end = _read_block(data, begin)
            if end is None:
                break
            if "rows" in block:
                rows.append(_rows(block, content, len(variables), scalars))
            elif "samples" in block:
                samples.append(_samples(block, content, len(variables)))
            elif "histogram" in block:
                kind = np.dtype(("<f4", (HISTOGRAM,)))
                values = _array(content, len(variables), kind)
                found.histograms[int(block["histogram"])] = values
            elif "events" in block:
                found.events += [Event(**event) for event in block["events"]]
            elif "report" in block:
                found.report = dict(block["report"])
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"{path!r} is damaged at byte {begin:,} of {len(data):,}: {error}"
            ) from error
        begin = end
    found.rows = np.concatenate([rows_of(0, len(variables)), *rows])
    found.samples = np.concatenate([samples_of(0, len(variables)), *samples])
    for array in (found.rows, found.samples):
        if (np.diff(array["step"]) <= 0).any():
            raise ValueError(
                f"{path!r} is damaged: its steps are not in ascending order"
            )
    return found


def _read_header(path, data):
    """Returns `(variables, names of the scalars, start of the first block)`."""
    end = data.find(b"\n") + 1
    try:
        content = json.loads(data[:end])
        known = content["format"] == FORMAT
    except (ValueError, TypeError, KeyError):
        known = False
    if not known:
        raise ValueError(
            f"{path!r} is not the record of a run: its first line is not JSON with "
            f'"format": "{FORMAT}". It begins with {data[:40]!r}'
        )
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path!r} has version {content.get('version')!r} of the format; this "
            f"version of keras_gradwatch reads version {VERSION}"
        )
    lists = [content.get("variables"), content.get("scalars")]
    for name, value in zip(("variables", "scalars"), lists, strict=True):
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ValueError(
                f"{path!r} is damaged in its first line: {name!r} must be a list of "
                f"names. Received: {value!r}"
            )
    return (*map(tuple, lists), end)


def _read_block(data, begin):
    """Returns `(line, its bytes, start of the next)`, the last None if unfinished."""
    line_end = data.find(b"\n", begin) + 1
    if not line_end:
        return None, None, None
    block = json.loads(data[begin:line_end])
    if not isinstance(block, dict):
        raise ValueError(f"a line must be a dict. Received: {block!r}")
    size = block.get("bytes", 0)
    if not isinstance(size, int) or size < 0:
        raise ValueError(f"`bytes` must be an integer >= 0. Received: {size!r}")
    end = line_end + size
    return block, data[line_end:end], end if end <= len(data) else None


def _array(content, count, kind):
    if len(content) != count * kind.itemsize:
        raise ValueError(
            f"expected {count} items of {kind.itemsize} bytes, found {len(content)} "
            "bytes"
        )
    return np.frombuffer(content, kind)


def _rows(block, content, variables, scalars):
    stored = _array(content, block["rows"], row_type(variables, len(scalars)))
    if scalars == COLUMNS:
        return stored
    rows = rows_of(len(stored), variables)
    rows["step"], rows["norms"] = stored["step"], stored["norms"]
    for i, name in enumerate(COLUMNS):
        if name in scalars:
            rows["scalars"][:, i] = stored["scalars"][:, scalars.index(name)]
    return rows


def _samples(block, content, variables):
    names = block["statistics"]
    stored = _array(content, block["samples"], sample_type(variables, len(names)))
    samples = samples_of(len(stored), variables)
    samples["step"] = stored["step"]
    for k, name in enumerate(names):
        if name in STATISTICS:
            samples["values"][:, STATISTICS.index(name)] = stored["values"][:, k]
    return samples
