"""Keeping a monitor's state over the end of its process."""

import os
import time

from keras_gradwatch.controller.backup import Backup, Snapshot
from keras_gradwatch.tensors.processes import is_chief, of_chief

# Seconds between two snapshots within an epoch, at least: one takes 10 to 20 ms.
PAUSE = 5.0


def is_state(name):
    """Whether a new process continues from the variable `name` of the monitor.

    All else is set by the plan, or belongs to one `fit`.
    """
    return name == "step" or name.startswith(("policy", "rate_scale"))


class Keeper:
    """Writes a monitor's state to files, and takes it up in a new process.

    Args:
        monitor: The `GradientMonitor`.

    Attributes:
        resumed: `(step, events before it)` where this `fit` has taken up the run of
            another process; else None.
    """

    def __init__(self, monitor):
        self.resumed = None
        self._monitor = monitor
        self._backups = {}  # directory -> Backup, of all fits
        self._active = []  # those of this `fit`
        self._last = 0.0

    def begin(self, directories, updates, shapes):
        """Begins a `fit`; a new monitor of a model that was trained takes up its run.

        Keras has brought the model back by now, if it did (`BackupAndRestore` does it
        in `on_train_begin`). Of several processes one reads and writes files, and has
        the others continue from where it does.

        Args:
            directories: Where the state is kept; the first one that has it is read.
            updates: Number of updates that the optimizer has made.
            shapes: Shapes of the trainable variables.
        """
        self.resumed, self._active, new = None, [], []
        self._last = time.monotonic()
        for directory in map(os.path.abspath, directories if is_chief() else ()):
            if directory not in self._backups:
                self._backups[directory] = Backup(directory)
                new.append(self._backups[directory])
            self._active.append(self._backups[directory])
        if directories and self._monitor.step == 0 and updates > 0:
            found = of_chief(_find(new, updates, shapes))
            if found is not None:
                step, state, events = found
                self._monitor.restore({**state, "step": step})
                self.resumed = step, events
        for backup in new:
            backup.begin(self._monitor.step if self.resumed else None)

    def add(self, events):
        """Writes newly found events."""
        self._write(lambda backup: backup.add(events))

    def due(self, epoch_end):
        """Whether the state is to be kept now: at an epoch's end, else now and then."""
        now = epoch_end or time.monotonic() - self._last >= PAUSE
        return bool(self._active) and now

    def keep(self, updates, shapes, epoch_end=False):
        """Writes the present state; to be called when the ring has been drained."""
        state = self._monitor.state(is_state)
        step = state.get("step", 0)
        snapshot = Snapshot(step, updates, shapes, epoch_end, state)
        self._write(lambda backup: backup.keep(snapshot))
        self._last = time.monotonic()

    def _write(self, write):
        """Writes to every directory; one that cannot be written ends no training."""
        for backup in list(self._active):
            try:
                write(backup)
            except OSError as error:
                self._active.remove(backup)
                self._monitor.recorder.say_once(
                    f"the state is no longer kept in {backup.directory!r}: {error}"
                )


def _find(backups, updates, shapes):
    """What the first of `backups` has of a run with `updates` updates.

    Returns:
        `(step, state, events before it)`, or None.
    """
    for backup in backups:
        found = backup.find(updates, shapes)
        if found is not None:
            step = backup.step_at(updates, found)
            return step, found.state, backup.events(step)
    return None
