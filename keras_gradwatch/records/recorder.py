"""Host side: hands drained rows to those who listen, and sums up the epoch."""

from collections import deque

import numpy as np

from keras_gradwatch.tensors.processes import is_chief

# Event lines that one `fit` prints at most; the rest is in `.events`.
MAX_LINES = 20


class Recorder:
    """Takes rows once, whoever drained them, and tells every listener.

    Args:
        max_events: How many of the newest events are kept.

    Attributes:
        events: The newest `Event`s, a deque.
        before_line: What a printed line begins with: a line break where Keras draws a
            progress bar.
        lost: Number of steps that were overwritten in the ring before they were read.
    """

    def __init__(self, max_events=1000):
        self.events = deque(maxlen=max_events)
        self.lost = 0
        self._listeners, self._deciders = [], []
        self._told, self._lines = set(), 0
        self.before_line = ""
        self.begin_epoch()

    def listen(self, listener):
        """Has `listener(rows, events)` called with everything that is drained."""
        self._listeners.append(listener)

    def decide(self, decider):
        """Has `decider(rows)` called before the events of drained rows are told."""
        self._deciders.append(decider)

    def begin(self):
        """Begins a new `fit`: forgets the listeners and what has been told."""
        self._listeners, self._deciders = [], []
        self._told, self._lines = set(), 0

    def tell(self, events):
        """Prints events, one line each; each once, whoever asks for it."""
        for event in events:
            key = (event.step, event.message)
            if key in self._told:
                continue
            self._told.add(key)
            self._lines += 1
            if self._lines <= MAX_LINES:
                self.say(event.message)
            elif self._lines == MAX_LINES + 1:
                self.say(
                    "more events follow: not printed, but in the callback's `.events`"
                )

    def say_once(self, message):
        """Prints a message, unless another callback of this `fit` has done so."""
        if message not in self._told:
            self._told.add(message)
            self.say(message)

    def say(self, message):
        """Prints a message, clear of Keras's progress bar; of all processes, one."""
        if is_chief():
            print(f"{self.before_line}[gradwatch] {message}", flush=True)

    def begin_epoch(self):
        """Begins the sums of a new epoch."""
        self._norms, self._steps, self._explosions = 0.0, 0, 0

    def take(self, rows):
        """Takes newly drained `Rows`: events are derived, returned, listeners told."""
        for decider in self._deciders:
            decider(rows)
        events = rows.events()
        self.events.extend(events)
        norms = rows.scalars["global_norm"].astype("float64")
        finite = np.isfinite(norms)
        self._norms += norms[finite].sum()
        self._steps += int(finite.sum())
        self._explosions += len({e.step for e in events})
        for listener in self._listeners:
            listener(rows, events)
        return events

    @property
    def exploded(self):
        """Whether a step of this epoch has an event."""
        return self._explosions > 0

    def epoch_logs(self):
        """The log keys of the epoch: mean finite norm, and steps with an event."""
        mean = self._norms / self._steps if self._steps else float("nan")
        return {"grad_norm": float(mean), "explosions": self._explosions}
