"""Keeping a monitor's state over the end of its process."""

import os
import time

from keras_gradwatch.backup import Backup, Snapshot

# What goes on beside each site's detectors and policy; all else is set by the plan, or
# belongs to one `fit`.
STATE = ("step", "cut/last", "dense_until", "halt/hits")

# Seconds between two snapshots within an epoch, at least: one takes about 1 ms.
PAUSE = 1.0


def is_state(name):
    """Whether the monitor's variable `name` is a part of what goes on."""
    return name in STATE or name.startswith(("site", "rate_scale"))


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
        self._backups = {}  # directory -> Backup
        self._backup = None
        self._last = -PAUSE

    def begin(self, directory, updates, shapes):
        """Begins a `fit`; a new monitor of a model that was trained takes up its run.

        Keras has brought the model back by now, if it did (`BackupAndRestore` does it
        in `on_train_begin`).

        Args:
            directory: Where the state is kept; None: nowhere.
            updates: Number of updates that the optimizer has made.
            shapes: Shapes of the trainable variables.
        """
        self.resumed = self._backup = None
        if directory is None:
            return
        directory = os.path.abspath(os.fspath(directory))
        known = self._backups.get(directory)
        self._backup = known or Backup(directory)
        self._backups[directory] = self._backup
        if known:
            return
        monitor, found = self._monitor, None
        if monitor.step == 0 and updates:
            found = self._backup.find(updates, shapes)
        if found is None:
            self._backup.begin(monitor.step)
            return
        step = self._backup.step_at(updates, found)
        monitor.restore({**found.state, "step": step})
        self.resumed = step, self._backup.begin(step)

    def add(self, events):
        """Writes newly found events."""
        if self._backup is not None:
            self._backup.add(events)

    def due(self, epoch_end):
        """Whether the state is to be kept now: at an epoch's end, else now and then."""
        if self._backup is None:
            return False
        return epoch_end or time.monotonic() - self._last >= PAUSE

    def keep(self, updates, shapes, epoch_end=False):
        """Writes the present state; to be called when the ring has been drained."""
        state = self._monitor.state(is_state)
        step = state.get("step", 0)
        self._backup.keep(Snapshot(step, updates, shapes, epoch_end, state))
        self._last = time.monotonic()
