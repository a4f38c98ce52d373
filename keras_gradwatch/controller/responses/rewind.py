"""Rolling back to healthy weights when a skip comes too late."""

import math

import numpy as np

from keras_gradwatch.controller.responses import loan
from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.probe import STEPS, Pending, Probe
from keras_gradwatch.controller.responses.snapshot import Snapshot
from keras_gradwatch.controller.responses.streak import (
    count,
    exceeds_chance,
    initial_streak,
)
from keras_gradwatch.controller.responses.trust import level
from keras_gradwatch.detectors import Divergence
from keras_gradwatch.keras_hooks import model_state
from keras_gradwatch.records.events import DATA_ORDER, NEW_DATA
from keras_gradwatch.records.rows import APPLIED, SKIPPED

# A snapshot is healthy if the median of the newest losses, `FEWEST` to `WINDOW` many,
# is at most `HEALTHY` times the best such median so far; and where the first one was
# more than `FALLEN` times the best, closer to the best, on a log scale.
FEWEST, WINDOW, HEALTHY, FALLEN = 5, 20, 2.0, 1.3
# Steps in a row without finite gradients after which the weights may be the cause.
STUCK = 20
# A run returns to its first weights if they lower the loss by this factor.
BETTER = 10.0
# Steps after the first rollback until its cut is undone.
QUIET = 1000
# If the data explained a high loss, a loss of up to this many times its value is not
# examined again: with a fixed order, the same part of each epoch is the hardest.
SHOWN = 2.0


class Rewind(Response):
    """Rolls a run back to its last healthy snapshot, at a lower learning rate.

    A snapshot contains weights, non-trainable state, and the optimizers' state (slots,
    iterations, accumulators, averages, a loss scale), but not their learning rates,
    which are cut, nor seeds, metrics and the monitor's counters. The data continue with
    the next batch. The cut of the first rollback is undone after `QUIET` steps, unless
    another rollback comes first; the cuts of later ones remain.

    If the loss has risen, the snapshot is tested first, for three steps. If the loss
    does not come down with its weights, the data or the loss function must have
    changed: the run continues from where it was, with new baselines and without rate
    cuts, and a later rise to the same level is not tested. If the epoch ends before the
    test, and is not the last one, the first losses of the next epoch decide whether the
    snapshot is tested there.

    A run without finite gradients, for longer than chance explains, is rolled back,
    too, because its weights may be the cause. The first time, its learning rate is not
    cut, because a bad batch says nothing about it.

    Two snapshots are kept in host memory, the first one and the newest healthy one: the
    median of its newest losses is at most twice the best such median so far (and, where
    the loss has fallen, closer to it than to the first one), and gradients reach the
    kernels.

    Args:
        freq: Minimum number of steps between two snapshots.
        limit: Maximum number of rollbacks; the next time, the run is stopped.
        factor: Factor by which learning rates and trust radius are multiplied.
        min_lr: No learning rate is cut below this.
    """

    may_cut = True

    def __init__(self, detectors, freq=200, limit=3, factor=0.25, min_lr=0.0):
        super().__init__(detectors)
        self._freq, self._limit = freq, limit
        self._factor, self.min_lr = factor, min_lr
        self._snapshots = []
        self._tripped, self._stuck = [], []
        self._probe = None
        self._wanted = None  # limit and trip of a probe that was asked for
        self._pending = None  # a trip that the next epoch decides about
        self._dead = set()  # the applications whose networks have died
        self._moved = False  # whether an update was made since the last snapshot
        self.count, self.stopped = 0, False
        self._forget_losses()

    def initial_memory(self):
        loans = {**loan.initial_loan(), "quiet": QUIET}
        return {**initial_streak(), **loans, "of_data": 0.0}

    def begin(self, controller, memory):
        """Takes the first snapshot of a `fit`."""
        self.count, self.stopped = 0, False
        self._probe = self._pending = None
        self._forget_losses()
        self._dead.clear()
        self._snapshots = [Snapshot(controller)]

    def claims(self, moment, memory):
        """Processes a step of a probe, and hides it from the detectors."""
        if self._probe is None:
            return False
        if moment.complete:
            blamed = self._probe.blames_weights(moment.loss)
            if blamed is not None:
                probe, self._probe = self._probe, None
                self._conclude(probe, blamed, moment, memory)
        return True

    def react(self, moment, memory):
        self._tripped += self._of_all_networks(moment)
        if moment.complete:
            outcome = moment.rows.scalars["outcome"][moment.row]
            count(memory, outcome == SKIPPED and not moment.finite)
            self._stuck = list(moment.trips) if memory["row"] else []
            self._moved |= bool(outcome == APPLIED)

    def _of_all_networks(self, moment):
        """Returns the trips that concern the whole model.

        One of several networks may have died while the others train. A rollback would
        cost these their progress, and would not revive it at their learning rates.
        """
        found = []
        for trip in moment.followed(self):
            if trip.application is None:
                found.append(trip)
                continue
            self._dead.add(trip.application)
            trip.followed = False
            if len(self._dead) == len(moment.controller.places):
                trip.followed = True
                found.append(trip)
        return found

    def after(self, rows, controller, memory):
        tripped, self._tripped = self._tripped, []
        wanted, self._wanted = self._wanted, None
        if not self._snapshots or self.stopped or self._probe is not None:
            return
        healthy = self._is_healthy(rows)
        stuck = self._moved and self._stuck and exceeds_chance(memory, STUCK)
        if stuck:
            memory.update(initial_streak())
        else:
            tripped = self._set_aside(tripped, rows, controller, memory)
        if self._pending is not None and not (tripped or stuck):
            self._examine(rows, controller, memory)
        elif tripped or stuck:
            self._pending = None
            cuts = bool(tripped) or self.count > 0
            self._go_back(tripped or self._stuck, controller, memory, cuts)
        elif wanted is not None and self._has_room(controller):
            self._probe = Probe(self._snapshots[0], controller, *wanted)
        else:
            loan.give_back(memory, rows, controller, self)
            if healthy and controller.step - self._snapshots[-1].step >= self._freq:
                self._snapshots[1:] = [Snapshot(controller)]

    def end_epoch(self, controller, memory):
        if self._probe is not None:
            probe, self._probe = self._probe, None
            probe.left.put_back(controller)
            if probe.trip.detector in self.detectors:
                self._pending = Pending(probe.trip, controller.next)

    def put_slots_back(self, controller):
        """Restores the optimizer slots of the newest snapshot.

        The current ones contain the gradient of an update that did harm.
        """
        if not self._snapshots:
            return
        back = self._snapshots[-1]
        copies = zip(back.variables, back.copies, strict=True)
        copies = {id(variable): copy for variable, copy in copies}
        for variable, first in model_state.slots(controller.monitor.model):
            if id(variable) in copies:
                copy = copies[id(variable)]
                controller.access.put_back([variable], [copy])
            else:  # made since then
                controller.access.write(variable, np.full(variable.shape, first))

    def _set_aside(self, tripped, rows, controller, memory):
        """Returns the trips to act on at once; a risen loss is examined first."""
        risen = len(tripped) == 1 and isinstance(tripped[0].detector, Divergence)
        if not risen or self.count >= self._limit:
            return tripped
        (trip,) = tripped
        known = trip.value <= SHOWN * memory["of_data"]
        room, next_epoch = self._has_room(controller), controller.next_epoch
        if not known and not room and next_epoch is None:
            return tripped if _is_far(trip) else []  # too late for a test
        rows.trips.remove(trip)
        if not known:
            self._pending = Pending(trip, None if room else next_epoch)
        return []

    def _examine(self, rows, controller, memory):
        """Tests the snapshot, unless the loss has come down with the next epoch."""
        pending = self._pending
        if pending.begin is not None and not pending.is_decided(rows):
            controller.read_each(1)
            return
        self._pending, trip = None, pending.trip
        if pending.begin is None or not pending.came_down:
            self._probe = Probe(self._snapshots[-1], controller, pending.limit, trip)
            return
        trip.row = len(rows) - 1
        if _is_far(trip):
            rows.trips.append(trip)
        self._blame_data(trip, DATA_ORDER, controller, memory)
        trip.words = (
            "it fell again at the start of the next epoch: the samples come in a "
            "fixed order, and the last ones are the hardest; training continues"
        )

    def _blame_data(self, trip, cause, controller, memory):
        trip.cause = cause
        memory["of_data"] = max(memory["of_data"], trip.value)
        controller.restart_detectors()
        self._forget_losses()
        trip.action = "observed"

    def _has_room(self, controller):
        return controller.steps_left > STEPS and self.count < self._limit

    def request_probe(self, loss, trip):
        """Requests a probe: does the first snapshot reach a tenth of `loss`?"""
        self._wanted = level(loss) - math.log(BETTER), trip

    def _conclude(self, probe, blamed, moment, memory):
        """Ends a probe: rolls back, or continues from where the run was."""
        controller, trip = moment.controller, probe.trip
        rose = trip.detector in self.detectors
        if rose or blamed:
            trip.row = moment.row
            moment.trips[:] = [trip] if blamed or _is_far(trip) else []
        if not rose:
            if blamed:
                controller.restart_detectors()
                trip.action = "rewound"
                trip.words = f"the snapshot of step {probe.snapshot.step} was restored"
            else:
                probe.left.put_back(controller)
            return
        if blamed:
            self._go_back([trip], controller, memory, cuts=True)
            return
        probe.left.put_back(controller)
        self._blame_data(trip, NEW_DATA, controller, memory)
        controller.give_cuts_back(moment.rows, "the scale of the loss has changed")
        trip.words = (
            f"it does not come down with the weights of step {probe.snapshot.step} "
            "either, so the data or the loss function must have changed; training "
            "continues"
        )

    def _go_back(self, tripped, controller, memory, cuts):
        back = self._snapshots[-1]
        if self.count < self._limit:
            words = f"the snapshot of step {back.step} was restored"
            words += ", and the learning rate was lowered" if cuts else ""
            done = "rewound", words
        else:
            self.stopped = True
            words = (
                f"training stopped: the run still fails after {self.count} rollbacks"
            )
            done = "stopped", words
        for trip in tripped:
            trip.action, trip.words = done
        back.put_back(controller)
        self._moved = False
        if cuts:
            if memory["cuts"]:
                memory["lent"], memory["quiet"] = [], math.inf  # a relapse
            memory["calm"] = controller.step
            loan.cut(memory, None, controller, self._factor, self.min_lr)
        if self.stopped:
            controller.halt(None)
            return
        self._dead.clear()
        # Reset the baselines: they come from the diverged run.
        controller.restart_detectors()
        if cuts:
            controller.tighten(self._factor)
        self._forget_losses()
        self.count += 1
        # If this snapshot fails, too, the next rollback goes back to the first one.
        del self._snapshots[1:]
        controller.monitor.keep(epoch_end=True)

    def _is_healthy(self, rows):
        """Returns whether the model after these steps is worth a snapshot."""
        norms = rows.statistic("norm")
        measured = np.isfinite(norms).any(axis=1)  # not within an accumulation window
        norms = norms[measured][-1] if measured.any() else norms[-1]
        alive = (norms > 0).sum() > 1 or len(norms) < 2
        return bool(self._is_low(rows.scalars["loss"]) and alive)

    def _is_low(self, losses):
        """Adds new losses; returns whether they are as low as those before."""
        losses = losses[np.isfinite(losses)].tolist()
        before = float(np.median(self._losses)) if self._losses else np.inf
        self._losses = (self._losses + losses)[-WINDOW:]
        self._seen += len(losses)
        level = float(np.median(self._losses)) if self._losses else np.nan
        if not level > 0:
            return True  # a loss that is not known, or below 0, is no measure
        if self._seen <= WINDOW or self._first is None:
            self._first = level
        low = level <= HEALTHY * self._best
        if self._first > FALLEN * self._best:
            low = low and level <= math.sqrt(self._first) * math.sqrt(self._best)
        # The least of many single losses would be far below all others.
        if len(self._losses) >= FEWEST:
            self._best = min(self._best, level)
        # A loss that begins to rise does not move that median at once.
        rises = losses and 0 < HEALTHY * before < float(np.median(losses))
        return low and not rises

    def _forget_losses(self):
        self._losses, self._seen = [], 0
        self._first, self._best = None, math.inf


def _is_far(trip):
    """Returns whether a rise of the loss is an event even if the data explain it."""
    return trip.value > trip.detector.settings["factor"] * trip.baseline
