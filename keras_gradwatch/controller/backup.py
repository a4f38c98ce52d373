"""The state needed to resume a run after its process was killed, in two small files.

| file | content |
|---|---|
| `state.jsonl` | saved states of the monitor, one per line, the oldest first |
| `events.jsonl` | the first `MAX_EVENTS` `Event`s, one per line |

The state is saved at the end of each epoch, whenever the model is saved, and otherwise
about every 5 s, when recorded steps are read. The model is restored from its own file
(a checkpoint, `BackupAndRestore`), which may be older than the last saved state. So
several states are kept; the fingerprint of the model's weights finds the matching one.
"""

import dataclasses
import json
import os

from keras_gradwatch.records import files
from keras_gradwatch.records.events import Event

# States that are kept: the newest of the epochs' ends and of saved models, and the
# newest in between.
EPOCH_ENDS = 64
IN_BETWEEN = 16
MAX_EVENTS = 10_000


@dataclasses.dataclass(frozen=True)
class SavedState:
    """A saved state of the monitor.

    Attributes:
        step: Number of steps so far.
        fingerprint: Fingerprint of the model; see `identity.fingerprint`.
        epoch_end: Whether an epoch had just ended, or the model is being saved.
        state: Result of `GradientMonitor.state`.
    """

    step: int
    fingerprint: str | None
    epoch_end: bool
    state: dict


class Backup:
    """Saved states and events of one run, in the directory that it has taken."""

    def __init__(self, directory):
        self.directory = os.path.abspath(directory)
        self._state_path = os.path.join(self.directory, "state.jsonl")
        self._events_path = os.path.join(self.directory, "events.jsonl")
        self._kept = []  # pairs of a `SavedState` and its line
        self._written = 0  # number of events in the file

    def find(self, fingerprint):
        """Returns the newest state with this fingerprint, or None."""
        found = None
        for saved in _read(self._state_path, SavedState):
            fits = fingerprint is not None and saved.fingerprint == fingerprint
            if fits and (not found or saved.step >= found.step):
                found = saved
        return found

    def events(self, step):
        """Returns the saved `Event`s before `step`, a list."""
        return [e for e in _read(self._events_path, Event) if e.step < step]

    def begin(self, step):
        """Drops what is saved of `step` and later; None: everything."""
        kept, events = [], []
        if step is not None:
            kept = [s for s in _read(self._state_path, SavedState) if s.step <= step]
            events = self.events(step)
        self._kept = [(s, _line(s)) for s in kept]
        files.replace(self._state_path, "".join(line for _, line in self._kept))
        files.replace(self._events_path, "".join(map(_line, events)))
        self._written = len(events)

    def keep(self, saved):
        """Saves a state, and drops those that are too old."""
        if self._kept and self._kept[-1][0].step == saved.step:
            last, _ = self._kept.pop()
            epoch_end = saved.epoch_end or last.epoch_end
            saved = dataclasses.replace(saved, epoch_end=epoch_end)
        self._kept.append((saved, _line(saved)))
        room = {True: EPOCH_ENDS, False: IN_BETWEEN}
        kept = []
        for pair in reversed(self._kept):
            room[pair[0].epoch_end] -= 1
            if room[pair[0].epoch_end] >= 0:
                kept.append(pair)
        self._kept = kept[::-1]
        files.replace(self._state_path, "".join(line for _, line in self._kept))

    def add(self, events):
        """Appends events, up to `MAX_EVENTS` in the file."""
        events = events[: MAX_EVENTS - self._written]
        if not events:
            return
        self._written += len(events)
        os.makedirs(self.directory, exist_ok=True)
        with open(self._events_path, "a", encoding="utf-8") as file:
            file.writelines(_line(e) for e in events)


def _line(record):
    return json.dumps(dataclasses.asdict(record)) + "\n"


def _read(path, kind):
    return files.read_lines(path, lambda values: kind(**values))
