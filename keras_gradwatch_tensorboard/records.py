"""Which runs below TensorBoard's directory have a record."""

import os
import threading
import time

RECORD = "record.gwr"
FOLDER = "gradwatch"
# Seconds between two searches, and for which the first one is waited for.
PAUSE, PATIENCE = 5.0, 0.3


def find(logdir):
    """Dict of the names of runs, as TensorBoard has them, to their directories."""
    found = {}
    for directory, folders, files in os.walk(logdir, followlinks=True):
        folders.sort()
        if RECORD in files:
            folders.clear()  # what is below are its incidents
            name = os.path.relpath(directory, logdir)
            found[name.replace(os.sep, "/")] = directory
    return found


def stamp(directory):
    """What changes when more is written to a record, a str."""
    try:
        status = os.stat(os.path.join(directory, RECORD))
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"


class Finder:
    """Looks for runs in a thread: TensorBoard does not wait for a large directory.

    Args:
        logdir: Directory of TensorBoard, or None.
    """

    def __init__(self, logdir):
        self._logdir = logdir
        self._found, self._searched, self._thread = {}, -PAUSE, None
        self._lock = threading.Lock()

    def any(self):
        """Whether there is a run, as far as is known by now."""
        with self._lock:
            idle = self._thread is None or not self._thread.is_alive()
            if idle and time.monotonic() - self._searched > PAUSE:
                self._thread = threading.Thread(target=self.all, daemon=True)
                self._thread.start()
        self._thread.join(PATIENCE)
        return bool(self._found)

    def all(self):
        """All runs, a dict as `find` returns it."""
        self._found = find(self._logdir) if self._logdir else {}
        self._searched = time.monotonic()
        return self._found
