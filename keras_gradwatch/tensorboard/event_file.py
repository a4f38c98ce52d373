"""The event file beneath `EventWriter`: one new file, records in the order written.

TensorBoard's own `EventFileWriter` opens its file with TensorFlow if that is installed,
and has a thread that may hold events back for two minutes. This uses `RecordWriter`,
which lies beneath it, on a plain file: no thread, no delay.
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

    Raises ValueError if `log_dir` cannot be written, or `first_step` is invalid.
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
        """Appends an `event_pb2.Event`; raises ValueError if the file is closed."""
        if self._records.closed:
            raise ValueError(f"The event file is closed: {self.path}")
        self._records.write(event.SerializeToString())

    def flush(self):
        """Passes all events to the operating system: readers see them from then on."""
        if not self._records.closed:
            self._records.flush()

    def close(self):
        """Flushes and closes the file; may be called again."""
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
    """Creates the directory and opens a file in it that no other writer has.

    TensorBoard reads the files of a directory in the order of their names. So the name
    starts with the time in nanoseconds: a resumed run comes after the one it resumes.
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
