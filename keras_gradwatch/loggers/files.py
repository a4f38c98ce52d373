"""Logs in plain files: CSV and JSON lines."""

import copy
import csv
import dataclasses
import json
import math
import os

from keras_gradwatch.loggers.base import Logger
from keras_gradwatch.methods import flag, local_path
from keras_gradwatch.tensorboard import tags


class FileLog(Logger):
    """Base of the loggers that write a file. Nothing is ever overwritten.

    If the file exists, `-2`, `-3`, ... is added to its name, unless `append` is True.
    Later calls of `fit` continue the same file in any case.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = self._asked = local_path(self, "path", path, "file")
        self.append = flag(self, "append", append)
        self._begun = False

    def on_begin(self, step):
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        if not self._begun:
            self._claim()
            self._begun = True
        with open(self.path, "ab+") as file:  # which may have been removed
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read() != b"\n":  # a full disk cut the last line off
                    file.write(b"\n")

    def _claim(self):
        stem, extension = os.path.splitext(self._asked)
        number = 1
        while True:
            try:
                with open(self.path, "a" if self.append else "x", encoding="utf-8"):
                    return
            except FileExistsError:
                number += 1
                self.path = f"{stem}-{number}{extension}"

    def __deepcopy__(self, memo):
        """Returns a logger with the same settings, and a file of its own."""
        new = copy.copy(self)
        new.path, new._begun = self._asked, False
        return new


class CsvLog(FileLog):
    """Writes the scalars to a CSV file: a row for each point, a column for each tag.

    A value that is not finite, or that a point does not have, is left empty. Events and
    the report are not in the table; `JsonLinesLog` has them.

    Args:
        path: File to write; its directory is created if missing. If the file exists,
            `-2`, `-3`, ... is added to its name: nothing is overwritten.
        append: Whether a file that exists is continued instead. Later calls of `fit`
            continue the same file in any case. Defaults to `False`.

    Raises:
        ValueError: If an argument is invalid.

    Example:

    ```python
    log = keras_gradwatch.loggers.CsvLog("logs/gradients.csv")
    watch = callbacks.GradWatch(log=log, verbose=0)
    model.fit(x, y, callbacks=[watch])
    ```
    """

    def on_begin(self, step):
        super().on_begin(step)
        self._widen(("step", *tags.SCALARS, *tags.HOLDING, *tags.SCALING))

    def on_log(self, step, values):
        if not set(values) <= set(self._columns):
            self._widen(values)
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            _writer(file, self._columns).writerow({"step": step, **values})

    def _widen(self, more):
        """Adds columns. A process that is killed leaves the old file or the new one."""
        with open(self.path, newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            present = list(rows.fieldnames or ())
            columns = list(dict.fromkeys([*present, *more]))
            if columns != present:
                with open(f"{self.path}.new", "w", newline="", encoding="utf-8") as new:
                    writer = _writer(new, columns)
                    writer.writeheader()
                    writer.writerows(rows)
        if columns != present:
            os.replace(f"{self.path}.new", self.path)
        self._columns = columns


def _writer(file, columns):
    # A row of another program may be longer than the header.
    return csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")


class JsonLinesLog(FileLog):
    """Writes scalars, events and reports to a file, one JSON object a line.

    | line | when |
    |---|---|
    | `{"step": 3, "gradwatch/grad_norm": 0.5, ...}` | each point |
    | `{"step": 3, "event": {"kind": ..., "message": ..., ...}}` | each event |
    | `{"report": {"verdict": ..., "fixes": ..., ...}}` | the end of each `fit` |

    A number that is not finite is `null`.

    Args:
        path: File to write; its directory is created if missing. If the file exists,
            `-2`, `-3`, ... is added to its name: nothing is overwritten.
        append: Whether a file that exists is continued instead. Later calls of `fit`
            continue the same file in any case. Defaults to `False`.

    Raises:
        ValueError: If an argument is invalid.

    Example:

    ```python
    log = keras_gradwatch.loggers.JsonLinesLog("logs/gradients.jsonl")
    watch = callbacks.GradWatch(log=log, verbose=0)
    model.fit(x, y, callbacks=[watch])
    ```
    """

    def on_log(self, step, values):
        self._write({"step": step, **values})

    def on_event(self, event):
        self._write({"step": event.step, "event": dataclasses.asdict(event)})

    def on_end(self, report, heatmap):
        self._write({"report": report.to_dict()})

    def _write(self, content):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(content)) + "\n")


def _plain(value):
    """Replaces numbers that JSON does not have by None."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
