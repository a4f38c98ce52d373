"""Saving the state of a run for a process that continues it."""

import os

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.methods import local_path


class KeepState(WatchingCallback):
    """Saves step count, baselines, learning rate cuts and events in a directory.

    Use it for runs without a `log_dir`; `GradWatch` and `GradientTensorBoard` with a
    `log_dir` save their state themselves. `keras.callbacks.BackupAndRestore`, or a
    checkpoint with the optimizer's state, restores the model. If a new process
    continues to train it, with this callback on the same directory, the step count
    and the detectors' baselines continue from the saved state.

    The state is written to `state.jsonl` at the end of each epoch, whenever the model
    is saved, and about every 5 s in between. The first 10,000 events are written to
    `events.jsonl`. If the process is killed, both files remain readable. The saved
    model does not contain the state.

    Args:
        directory: Local directory; created if missing. If it contains another run,
            this run uses `run-2`, ... in it.

    Raises:
        ValueError: If `directory` is not a local path, or, when `fit` begins, if it
            cannot be written.

    Example:

    ```python
    callbacks = [
        keras.callbacks.BackupAndRestore("backup"),
        keras_gradwatch.callbacks.ReduceLROnExplosion(),
        keras_gradwatch.callbacks.KeepState("gradwatch_state"),
    ]
    ```
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        super().__init__()
        self.directory = local_path(self, "directory", directory)

    def request(self):
        return Request("KeepState", state_dirs=(self.directory,))
