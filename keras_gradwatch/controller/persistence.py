"""Saves a monitor's state, and restores it in a new process."""

import os
import time

from keras_gradwatch.controller import directories
from keras_gradwatch.controller.backup import Backup, SavedState
from keras_gradwatch.tensors.processes import is_chief, of_chief

# Seconds between two snapshots within an epoch, at least: one takes 10 to 20 ms.
PAUSE = 5.0


def is_state(name):
    """Returns whether a variable is saved; all others belong to the plan or `fit`."""
    return name == "step" or name.startswith(("policy", "rate_scale"))


class Keeper:
    """Writes a monitor's state to files, and restores it in a new process.

    Attributes:
        resumed: `(step, events before it)` if this `fit` continues the run of another
            process; else None.
        trial: Name of the run's trial in a hyperparameter search, or None.
    """

    def __init__(self, monitor):
        self.resumed = self.trial = None
        self._monitor = monitor
        self._backups = {}  # directory that was asked for -> Backup, of all fits
        self._active = []  # those of this `fit`
        self._last = 0.0

    def directory(self, asked):
        """Returns the directory that this run uses instead of the requested one."""
        backup = self._backups.get(os.path.abspath(asked))
        return asked if backup is None else backup.directory

    def begin(self, wanted):
        """Begins a `fit`; a new monitor of a trained model continues its run.

        By now Keras has restored the model, if it does (`BackupAndRestore` does so in
        `on_train_begin`). Of several processes, only the chief reads and writes files,
        and broadcasts what it has found. The first of the `wanted` directories with the
        state of this run is read.
        """
        self.resumed, self._active = None, []
        self._last = time.monotonic()
        found = None
        new = bool(wanted) and self._monitor.step == 0
        fingerprint = self._monitor.fingerprint() if new else None
        for asked in map(os.path.abspath, wanted if is_chief() else ()):
            if asked not in self._backups:
                snapshot = self._find(asked, fingerprint)
                if snapshot is not None and found is None:
                    events = self._backups[asked].events(snapshot.step)
                    found = snapshot.step, snapshot.state, events
            self._active.append(self._backups[asked])
        if new and (found := of_chief(found)) is not None:
            step, state, events = found
            self._monitor.restore({**state, "step": step})
            self.resumed = step, events

    def _find(self, asked, fingerprint):
        """Takes a directory; returns its `SavedState` to continue from, or None."""
        for directory in directories.used(asked, self.trial) if fingerprint else ():
            backup = self._backups[asked] = Backup(directory)
            saved = backup.find(fingerprint)
            if saved is not None:
                backup.begin(saved.step)
                return saved
        directory = directories.take(asked, self.trial)
        if self.trial is None and directory != asked:
            self._monitor.recorder.say_once(
                f"{asked!r} contains another run, so this one is written to "
                f"{directory!r}"
            )
        self._backups[asked] = Backup(directory)
        self._backups[asked].begin(None)
        return None

    def add(self, events):
        """Writes newly found events."""
        self._write(lambda backup: backup.add(events))

    def due(self, epoch_end):
        """Returns whether a save is due: at an epoch's end, or after `PAUSE`."""
        now = epoch_end or time.monotonic() - self._last >= PAUSE
        return bool(self._active) and now

    def keep(self, epoch_end=False):
        """Saves the current state; the ring must have been drained."""
        state = self._monitor.state(is_state)
        step = state.get("step", 0)
        saved = SavedState(step, self._monitor.fingerprint(), epoch_end, state)
        self._write(lambda backup: backup.keep(saved))
        self._last = time.monotonic()

    def _write(self, write):
        """Writes to every directory, and drops one that cannot be written."""
        for backup in list(self._active):
            try:
                write(backup)
            except OSError as error:
                self._active.remove(backup)
                self._monitor.recorder.say_once(
                    f"the state is no longer saved in {backup.directory!r}, but "
                    f"training continues: {error}"
                )
