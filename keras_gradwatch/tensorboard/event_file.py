"""The event file beneath `EventWriter`: one new file, records in the order written.

`tensorboard`'s own `EventFileWriter` opens its file with TensorFlow wherever that is
installed, and keeps a thread that may hold events back for two minutes. This stands on
what lies beneath it: `RecordWriter` over a plain file. No thread, no wait.
"""

import itertools
import operator
import os
import socket
import time
import weakref

from tensorboard.compat.proto import event_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

_file_numbers = itertools.count()


class EventFile:
    """A new event file that opens with its version and `SessionLog.START`.

    Args:
        log_dir: str or `os.PathLike`, a local directory; made if missing.
        first_step: int >= 0, the first step that this file will hold.

    Attributes:
        path: str, where the file is.

    Raises:
        ValueError: if `log_dir` is no directory that can be written, or `first_step`
            is no integer >= 0.
    """

    def __init__(self, log_dir, first_step):
        first_step = _check_first_step(first_step)
        self.path, file = _open_new_file(log_dir)
        # Ctrl-C ends `fit` without a word to its callbacks: then `close` is not called.
        weakref.finalize(self, file.close)
        self._records = RecordWriter(file)
        now = time.time()
        self.write(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self.write(event_pb2.Event(wall_time=now, step=first_step, session_log=start))
        self.flush()

    def write(self, event):
        """Appends an event.

        Args:
            event: `event_pb2.Event`.

        Raises:
            ValueError: if the file is closed.
        """
        if self._records.closed:
            raise ValueError(f"The event file is closed: {self.path}")
        self._records.write(event.SerializeToString())

    def flush(self):
        """Hands everything written so far to the operating system.

        Readers see it from then on, and it outlives this process.
        """
        if not self._records.closed:
            self._records.flush()

    def close(self):
        """Flushes and closes the file. May be called again."""
        self._records.close()


def _check_first_step(first_step):
    try:
        value = operator.index(first_step)
    except TypeError:
        value = -1
    if value < 0:
        raise ValueError(
            f"`first_step` must be an integer >= 0. Received: {first_step!r}"
        )
    return value


def _open_new_file(log_dir):
    """Makes the directory and opens a file in it that no other writer has.

    TensorBoard reads a directory's files in the order of their names, hence the time
    at the head, down to the nanosecond: a resumed run comes after the one it resumes.
    """
    message = (
        "`log_dir` must be the path of a local directory that exists or can be made, "
        f"and that can be written. Received: {log_dir!r}"
    )
    if not isinstance(log_dir, (str, os.PathLike)) or not os.fspath(log_dir):
        raise ValueError(message)
    directory = os.fspath(log_dir)
    if not isinstance(directory, str) or "://" in directory:
        raise ValueError(message)
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    name = (
        f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        f".{socket.gethostname()}.{os.getpid()}.{next(_file_numbers):06d}.gradwatch"
    )
    path = os.path.join(directory, name)
    try:
        os.makedirs(directory, exist_ok=True)
        return path, open(path, "xb")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise ValueError(f"{message} ({error})") from error
