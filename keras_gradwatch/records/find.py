"""Finds the runs in a directory."""

import os

from keras_gradwatch.records.incidents import EVENT_LOG, FOLDER, RECORD, REPORT

MARKS = (REPORT, EVENT_LOG, RECORD)
"""Files by which the directory of a run is known."""


def find_all(logdir):
    """Lists the directories of all runs in `logdir`; raises ValueError if none."""
    runs = []
    for directory, folders, files in os.walk(logdir):
        folders.sort()
        if set(MARKS) & set(files):
            runs.append(directory)
            # Its incidents are no runs; further runs may be.
            folders[:] = [name for name in folders if name != FOLDER]
    return runs or [find(logdir)]


def find(logdir):
    """Returns the directory of a run, `gradwatch` in `logdir` or `logdir` itself.

    Raises ValueError if neither has the files of a run.
    """
    logdir = os.fspath(logdir)
    if not os.path.isdir(logdir):
        raise ValueError(f"there is no directory {logdir!r}")
    places = [os.path.join(logdir, "gradwatch"), logdir]
    for place in places:
        if any(os.path.exists(os.path.join(place, f)) for f in MARKS):
            return place
    raise ValueError(
        f"there is no {REPORT} and no {EVENT_LOG} in {places[0]!r} or "
        f"{places[1]!r}; `callbacks.GradWatch` writes them, with a `log_dir` or a "
        "`state_dir`"
    )
