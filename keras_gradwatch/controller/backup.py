"""The state needed to resume a run after its process was killed, in two small files.

| file | content |
|---|---|
| `state.jsonl` | saved states of the monitor, one per line, the oldest first |
| `events.jsonl` | the first `MAX_EVENTS` `Event`s, one per line |

The state is saved at the end of each epoch, whenever the model is saved, and otherwise
about every 5 s, when recorded steps are read. The model itself is restored from its own
file (a checkpoint, `keras.callbacks.BackupAndRestore`), and may be older than the last
saved state. So several are kept; the fingerprint of the model's weights finds the one
that matches.
"""

import dataclasses
import json
import os

from keras_gradwatch.records.events import Event

# Snapshots that are kept: the newest of the epochs' ends and of saved models, and the
# newest in between.
EPOCH_ENDS = 64
IN_BETWEEN = 16
MAX_EVENTS = 10_000


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The monitor's state at one moment.

    Attributes:
        step: Number of steps so far.
        fingerprint: That of the model; see `identity.fingerprint`.
        epoch_end: Whether an epoch had just ended, or the model is being saved.
        state: Dict of variable name to value, nested lists of numbers.
    """

    step: int
    fingerprint: str | None
    epoch_end: bool
    state: dict


class Backup:
    """Snapshots and events of one run in one directory.

    Args:
        directory: Local directory that the run has taken; see `directories.take`.
    """

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        self._state = os.path.join(self.directory, "state.jsonl")
        self._events = os.path.join(self.directory, "events.jsonl")
        self._kept = []  # pairs of a Snapshot and its line
        self._written = 0  # number of events in the file

    def find(self, fingerprint):
        """The newest snapshot with a fingerprint, or None."""
        found = None
        for snapshot in _read(self._state, Snapshot):
            fits = fingerprint is not None and snapshot.fingerprint == fingerprint
            if fits and (not found or snapshot.step >= found.step):
                found = snapshot
        return found

    def events(self, step):
        """List of the `Event`s before `step` that are in the file."""
        return [e for e in _read(self._events, Event) if e.step < step]

    def begin(self, step):
        """Goes on from `step`, or begins a new run.

        Args:
            step: What was kept of it and of later steps is dropped; None: everything.
        """
        kept, events = [], []
        if step is not None:
            kept = [s for s in _read(self._state, Snapshot) if s.step <= step]
            events = self.events(step)
        self._kept = [(s, _line(s)) for s in kept]
        _replace(self._state, [line for _, line in self._kept])
        _replace(self._events, [_line(e) for e in events])
        self._written = len(events)

    def keep(self, snapshot):
        """Writes a snapshot, and drops what is too old."""
        if self._kept and self._kept[-1][0].step == snapshot.step:
            last, _ = self._kept.pop()
            epoch_end = snapshot.epoch_end or last.epoch_end
            snapshot = dataclasses.replace(snapshot, epoch_end=epoch_end)
        self._kept.append((snapshot, _line(snapshot)))
        room = {True: EPOCH_ENDS, False: IN_BETWEEN}
        kept = []
        for pair in reversed(self._kept):
            room[pair[0].epoch_end] -= 1
            if room[pair[0].epoch_end] >= 0:
                kept.append(pair)
        self._kept = kept[::-1]
        _replace(self._state, [line for _, line in self._kept])

    def add(self, events):
        """Appends events; of an endless run the first `MAX_EVENTS` only."""
        events = events[: MAX_EVENTS - self._written]
        if not events:
            return
        self._written += len(events)
        os.makedirs(self.directory, exist_ok=True)
        with open(self._events, "a", encoding="utf-8") as file:
            file.writelines(_line(e) for e in events)


def _line(record):
    return json.dumps(dataclasses.asdict(record)) + "\n"


def _read(path, kind):
    """The records in a file; a line that a killed process left unfinished is none."""
    records = []
    if not os.path.exists(path):
        return records
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                records.append(kind(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return records


def _replace(path, lines):
    """Writes a file as a whole: a process that is killed leaves the old or the new."""
    beside = f"{path}.new"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(beside, "w", encoding="utf-8") as file:
        file.writelines(lines)
    os.replace(beside, path)
