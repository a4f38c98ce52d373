"""Passes drained rows to the listeners, prints events, and summarizes epochs."""

import sys
from collections import deque

import numpy as np

from keras_gradwatch.records.events import tripped
from keras_gradwatch.tensors.processes import is_chief

# Lines that one `fit` prints of events with the same kind and action. More of them are
# counted, and all are in `.events`.
MAX_LINES = 3
# Events that are kept, the newest ones.
MAX_EVENTS = 1000


class Recorder:
    """Receives each drained row once, and passes it to every listener.

    Attributes:
        events: The newest `Event`s, a deque.
        before_line: Prefix of a printed line: a line break if Keras draws a progress
            bar.
        epoch: Number of the current epoch, or None.
        epoch_sums: `Sums` of the steps of the current epoch.
        listeners: Functions of drained rows and their events.
        at_begin: Functions that are called before the first step of a run, when its
            first batch is known.
        lost: Number of steps that were overwritten in the ring before they were read.
    """

    def __init__(self):
        self.events = deque(maxlen=MAX_EVENTS)
        self.lost = 0
        self.before_line = ""
        self.begin()
        self.begin_epoch()

    def begin(self):
        """Begins a new `fit`: drops the listeners and the printed events."""
        self.listeners, self.at_begin = [], []
        self._said = set()  # messages
        self._told = set()  # events of this reading
        self._alike = {}  # (kind, action) -> number of events, first and last step

    def tell(self, events):
        """Prints events, one line each, and each event only once."""
        for event in events:
            key = (event.step, event.message)
            if key in self._told:
                continue
            self._told.add(key)
            alike = event.kind, event.action
            number, first, _ = self._alike.get(alike, (0, event.step, event.step))
            self._alike[alike] = number + 1, first, event.step
            if number < MAX_LINES:
                epoch = "" if self.epoch is None else f"epoch {self.epoch}, "
                self.say(f"{epoch}{event.message}")
            elif number == MAX_LINES:
                kind = ", ".join(alike)
                self.say(
                    f"further events of this kind ({kind}) are counted, not printed"
                )

    def sum_up(self):
        """Prints the number of events of each kind that was only counted."""
        for (kind, action), (number, first, last) in self._alike.items():
            if number > MAX_LINES:
                self.say(f"{kind}, {action}: {number} times in steps {first} to {last}")
        self._alike = {}

    def say_once(self, message):
        """Prints a message, unless it was already printed in this `fit`."""
        if message not in self._said:
            self._said.add(message)
            self.say(message)

    def say(self, message):
        """Prints a message clear of Keras's progress bar, in one process only."""
        if not is_chief():
            return
        line = f"[gradwatch] {message}"
        # Whoever draws bars with tqdm (`tqdm.keras.TqdmCallback`) has imported it.
        bars = sys.modules.get("tqdm.std")
        if bars is not None and getattr(bars.tqdm, "_instances", None):
            bars.tqdm.write(line)
        else:
            print(f"{self.before_line}{line}", flush=True)

    def begin_epoch(self, epoch=None):
        """Begins the sums of epoch `epoch`, counted from 1; None if unknown."""
        self.epoch = epoch
        self.epoch_sums, self._batch = Sums(), Sums()

    def take(self, rows):
        """Receives newly drained `Rows`, notifies the listeners, returns the events."""
        self._told = set()
        events = rows.events()
        self.events.extend(events)
        self.epoch_sums.add(rows, events)
        self._batch.add(rows, events)
        for listener in self.listeners:
            listener(rows, events)
        return events

    def batch_logs(self):
        """Returns the logs of the steps since the last call, as `Sums.logs`."""
        logs, self._batch = self._batch.logs(), Sums()
        return logs


class Sums:
    """The sums behind the log keys of some steps."""

    def __init__(self):
        self._norms, self._steps, self.explosions = 0.0, 0, 0

    def add(self, rows, events):
        """Adds `Rows` and their events."""
        norms = rows.scalars["global_norm"].astype("float64")
        finite = np.isfinite(norms)
        self._norms += norms[finite].sum()
        self._steps += int(finite.sum())
        self.explosions += len({e.step for e in tripped(events)})

    def logs(self):
        """Returns a dict of `grad_norm` (mean finite norm, or NaN) and `explosions`."""
        mean = self._norms / self._steps if self._steps else float("nan")
        return {"grad_norm": float(mean), "explosions": self.explosions}
