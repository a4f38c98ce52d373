"""The names of event files, by which TensorBoard orders them."""

import itertools
import os
import socket
import time

_file_numbers = itertools.count()


def open_new_file(log_dir):
    """Creates the directory and opens a file in it that no other writer has.

    TensorBoard reads the files of a directory in the order of their names. So the name
    starts with the time in nanoseconds: a resumed run comes after the one it resumes.
    """
    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    name = (
        f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}"
        f".{socket.gethostname()}.{os.getpid()}.{next(_file_numbers):06d}.gradwatch"
    )
    path = os.path.join(log_dir, name)
    try:
        os.makedirs(log_dir, exist_ok=True)
        return path, open(path, "xb")
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise ValueError(
            "`log_dir` must be the path of a local directory that exists or can be "
            f"made, and that can be written. Received: {log_dir!r} ({error})"
        ) from error
