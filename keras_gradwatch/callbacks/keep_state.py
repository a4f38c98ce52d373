"""Keeping what is known of a run for a process that continues it."""

import os

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.methods import local_directory


class KeepState(WatchingCallback):
    """Keeps the step count, the baselines, rate cuts and events in a directory.

    For runs without a `log_dir`: `GradWatch` and `GradientTensorBoard` with one keep
    their state by themselves. The model itself comes back by
    `keras.callbacks.BackupAndRestore`, or by a checkpoint with the optimizer's state. A
    new process that trains it on, with this callback on the same directory, counts its
    steps from there, and its detectors continue with the baselines that they had then.

    The state is written at each epoch's end, whenever the model is saved, and about
    every 5 s in between, to
    `state.jsonl`, and each event to `events.jsonl`; a process that is killed leaves
    both readable. They are no part of what the model saves.

    Args:
        directory: Local directory; made if missing. Where it holds another run, this
            one has `run-2`, ... in it.

    Raises:
        ValueError: If `directory` is no local path, or, when `fit` begins, if it
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
        self.directory = local_directory(self, "directory", directory)

    def request(self):
        return Request("KeepState", state_dir=self.directory)
