"""Taking a run back to where it was sound."""

from dataclasses import dataclass

import numpy as np

# How many times the best loss so far a stretch of steps may have, to be sound.
SOUND = 2.0


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A run as it was before a step.

    Attributes:
        step: The step.
        values: List of pairs of a variable and a copy of its value on the host.
    """

    step: int
    values: list


class Rewinder:
    """Snapshots of a run in memory, and the way back to them.

    A snapshot holds weights, non-trainable state, and all that the optimizers keep
    (slots, iterations, accumulators, averages, a loss scale), but not their learning
    rates, which stay reduced. The batches go on: what did the harm is not replayed.
    Seeds, metrics and the monitor's own counters are no part of it.

    Two are kept, the first one and the newest that is sound: its losses are finite and
    no more than twice the best so far, and gradients reach the kernels. Each takes
    the memory of the weights and the optimizer's state, on the host.

    Args:
        monitor: The `GradientMonitor`.
        detectors: The detectors that ask for it.
        freq: Steps between two snapshots, at least.
        limit: How often a run is taken back; the next time it is stopped.
        factor: What rates and trust radius are multiplied by.
        min_lr: No rate is cut below this.
    """

    def __init__(self, monitor, detectors, freq, limit, factor, min_lr):
        self.count = 0
        self.stopped = False
        self._monitor = monitor
        self._detectors = detectors
        self._freq, self._limit = freq, limit
        self._factor, self._min_lr = factor, min_lr
        self._snapshots = []
        self._best = np.inf
        self._sound = False
        self._pending = None

    def begin(self):
        """Takes the first snapshot of a `fit`."""
        self._snapshots = [self._take()]
        self.count, self.stopped, self._pending = 0, False, None

    def decide(self, rows):
        """Decides on newly drained `Rows`, before their events are told.

        What is decided is done by `act`, when the model may be written to.
        """
        if not self._snapshots or self.stopped:
            return
        self._sound = self._is_sound(rows)
        detectors = rows.layout.detectors
        mine = [d for d, one in enumerate(detectors) if one in self._detectors]
        tripped = [d for d in mine if (rows.verdicts[:, d, 0] > 0).any()]
        if not tripped:
            return
        if self.count < self._limit:
            self._pending = self._snapshots[-1]
            words = f"the run goes on from step {self._pending.step}, at a lower rate"
            done = "rewound", words
        else:
            self.stopped = True
            self._pending = self._snapshots[-1]
            done = "stopped", f"training is stopped: {self.count} rewinds did not help"
        for d in tripped:
            rows.done[d] = done

    def act(self):
        """Goes back where that was decided; else takes a snapshot where one is due."""
        monitor = self._monitor
        if self._pending is not None:
            monitor.put_back(self._pending.values)
            monitor.cut_rates(self._factor, self._min_lr)
            tighten(monitor, self._factor)
            # What came of the harm is no yardstick for the way that now begins.
            begin_anew(monitor)
            self._best = np.inf
            self.count += 1
            # Where that one does not hold either, the next way is further back.
            del self._snapshots[1:]
            self._pending = None
            self._sound = False
            monitor.keep(epoch_end=True)
        elif self._sound:
            self._sound = False  # until the next drain: reading a step waits for it
            if monitor.step - self._snapshots[-1].step >= self._freq:
                self._snapshots[1:] = [self._take()]

    def _take(self):
        return Snapshot(self._monitor.step, self._monitor.snapshot())

    def _is_sound(self, rows):
        """Whether the model is worth keeping after these steps."""
        loss = rows.scalars["loss"]
        known = loss[np.isfinite(loss)]
        norms = rows.statistic("norm")
        measured = np.isfinite(norms).any(axis=1)  # not within an accumulation window
        norms = norms[measured][-1] if measured.any() else norms[-1]
        level = float(np.median(known)) if len(known) else np.nan
        # A loss that is not known, or below 0, is no yardstick.
        sound = not level > 0 or level <= SOUND * self._best
        if level > 0:
            self._best = min(self._best, level)
        alive = (norms > 0).sum() > 1 or len(norms) < 2
        return bool(sound and alive)


def tighten(monitor, factor):
    """Holds updates to a trust region `factor` times as large, from now on.

    Args:
        monitor: The `GradientMonitor`.
        factor: Between 0 and 1.
    """
    if not monitor.plan.holds:
        return
    monitor.settle()
    store, region = monitor.store, monitor.plan.holds[0][0].region
    until = monitor.step + 1 + int(region.settings["quiet"])
    for name in store.sites:
        kept = store.slots(name)
        fields = region.initial_state(0)
        state = {field: kept[f"{name}/trust/{field}"] for field in fields}
        state = region.tightened(state, factor, until)
        store.set_slots(name, {f"trust/{n}": v for n, v in state.items()})
    store.set_slots("run", {"dense_until": until})
    monitor.look_closely()


def begin_anew(monitor):
    """Has every detector forget what it has seen."""
    monitor.settle()
    count = len(monitor.layout.variables)
    fresh = {
        f"{label}/{field}": value
        for label, detector in monitor.plan.labelled
        for field, value in detector.initial_state(count).items()
    }
    for name in monitor.store.sites:
        monitor.store.set_slots(name, fresh)
    monitor.look_closely()
