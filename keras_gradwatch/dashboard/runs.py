"""Finds recorded runs, and reads those that can be read."""

import os

from keras_gradwatch.records.find import find_all
from keras_gradwatch.records.load import load

# Runs that one page shows.
MOST = 8


def read(logdirs):
    """Reads all runs in some directories; returns them and why others are not shown.

    Raises ValueError if there is no run in one of them, or too many for a page.
    """
    found = {}
    for logdir in logdirs:
        found.update(dict.fromkeys(map(os.path.abspath, find_all(logdir))))
    if len(found) > MOST:
        names = "".join(f"\n  {path}" for path in found)
        raise ValueError(
            f"a page shows up to {MOST} runs, and there are {len(found)}; choose some "
            f"of them:{names}"
        )
    return read_all(dict(zip(names_of(list(found)), found, strict=True)))


def read_all(directories):
    """Reads the runs in a dict of names to directories; returns what `read` does."""
    runs, problems = [], []
    for name, directory in directories.items():
        try:
            run = load(directory)
        except (OSError, ValueError) as error:
            problems.append(f"{name}: {error}")
            continue
        run.name = name
        runs.append(run)
    return runs, problems


def names_of(directories):
    """Returns the shortest unique names of directories, without `gradwatch`."""
    heads, tails = zip(*map(os.path.split, directories), strict=True)
    paths = [
        head if tail == "gradwatch" else os.path.join(head, tail)
        for head, tail in zip(heads, tails, strict=True)
    ]
    parents = {os.path.dirname(path) for path in paths}
    root = os.path.commonpath(parents)
    return [os.path.relpath(path, root) for path in paths]
