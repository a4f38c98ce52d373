"""Logs in plain files: CSV and JSON lines."""

import csv
import dataclasses
import json
import math
import os

from keras_gradwatch.loggers.base import Logger
from keras_gradwatch.methods import flag, local_file
from keras_gradwatch.tensorboard import tags


class FileLog(Logger):
    """Base of the loggers that write a file. Nothing is ever overwritten.

    Args:
        path: File to write; its directory is created if missing. If the file exists,
            `-2`, `-3`, ... is added to its name.
        append: Whether a file that exists is continued instead. Later calls of `fit`
            continue the same file in any case. Defaults to `False`.

    Raises:
        ValueError: If an argument is invalid.
        OSError: When `fit` begins, if the file cannot be written.
    """

    def __init__(self, path: str | os.PathLike[str], append: bool = False) -> None:
        self.path = self._asked = local_file(self, "path", path)
        self.append = flag(self, "append", append)
        self._begun = False

    def on_begin(self, step):
        os.makedirs(os.path.dirname(os.path.abspath(self.path)), exist_ok=True)
        if not self._begun:
            self._claim()
            self._begun = True

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
        """A logger with the same settings, and a file of its own."""
        return type(self)(self._asked, self.append)


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
        OSError: When `fit` begins, if the file cannot be written.

    Example:

    ```python
    log = keras_gradwatch.loggers.CsvLog("logs/gradients.csv")
    watch = callbacks.GradWatch(log=log, verbose=0)
    model.fit(x, y, callbacks=[watch])
    ```
    """

    def on_begin(self, step):
        super().on_begin(step)
        columns, rows = self._read()
        known = ("step", *tags.SCALARS, *tags.HOLDING, *tags.SCALING)
        self._widen(columns, rows, known)

    def on_log(self, step, values):
        if not set(values) <= set(self._columns):
            self._widen(*self._read(), values)
        self._write([{"step": step, **values}], "a")

    def _read(self):
        """The columns of the file, and its rows."""
        with open(self.path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)

    def _widen(self, columns, rows, more):
        self._columns = list(dict.fromkeys([*columns, *more]))
        if self._columns != columns:
            self._write(rows, "w")

    def _write(self, rows, mode):
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            if mode == "w":
                writer.writeheader()
            writer.writerows(rows)


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
        OSError: When `fit` begins, if the file cannot be written.

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
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
