"""Reads and writes small files as a whole."""

import contextlib
import json
import os


def replace(path, content):
    """Writes a file atomically: a killed process leaves the old file or the new one."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with open(f"{path}.new", "wb") as file:
        file.write(data)
    os.replace(f"{path}.new", path)


def read_json(path):
    """Returns the dict in a JSON file; an empty one if it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path, make):
    """Returns `make(value)` for each line of JSON in a file; [] if there is no file.

    Lines that it rejects are left out, and one that a kill has left unfinished.
    """
    found = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                with contextlib.suppress(ValueError, TypeError, KeyError):
                    found.append(make(json.loads(line)))
    return found
