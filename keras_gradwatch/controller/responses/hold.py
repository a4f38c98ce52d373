"""Limiting updates to a trust region after one of them did harm."""

import math

import numpy as np

from keras_gradwatch.controller.responses import loan, trial
from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.trust import TrustRegion
from keras_gradwatch.records.rows import APPLIED, REVERTED, Trip

# Losses that an update over the bound is compared with, the newest ones.
WINDOW = 20
# Those that the first loss of a later `fit` is compared with.
LAST = 5
# It does harm if the next loss exceeds all of them by this many times their median.
MARGIN = 2.0
# A fit is reported as throttled once so many updates were held, and at least half.
THROTTLED = 200
# An update that is this many times as large as the weights is reverted at once.
INSANE = 1e3


class Hold(Response):
    """Limits updates to a trust region after one of them did harm.

    An update over the bound of its detectors is applied and judged by the loss of the
    next step, as in trust-region methods. If that loss is much worse than those before,
    or if two steps in a row are not finite, the weights are restored, and later updates
    are limited to the trust region. Otherwise the update is kept, and nothing is
    reported. If the update of a kernel is measured, and is not finite or larger than
    `INSANE`, it is reverted in its own step.

    If the first loss of a later `fit` is worse than the last ones by the same margin,
    the data have changed, or targets follow the model. From then on, updates are judged
    only after `WINDOW` losses of the same `fit`.

    While updates are limited, unlimited ones are tried after 1, 2, 4, ... windows of
    the trust region; see `Trial`. If a trial fails, or succeeds and the loss then rises
    again within `quiet` steps, the run returns to the start of the trial. A run
    that has stalled continues with a smaller radius and learning rate; the rate is
    restored after a number of healthy steps (see `loan`).

    With `acts=False` it only reports harmful updates, at most one in the region's
    `quiet` steps.

    Reference: the acceptance of a step by the actual decrease in trust-region methods
    (Conn, Gould and Toint 2000).
    """

    def __init__(self, detectors, min_lr=0.0, acts=True):
        super().__init__(detectors)
        self.acts = self.may_cut = acts
        self.region = TrustRegion()
        self.min_lr = min_lr
        # The trip of the update that is being judged, the bound of the loss, and
        # whether a step since then was not finite.
        self._suspect = None
        self._trial = None
        self._passed = None  # a trial that has succeeded, for `quiet` steps
        self._first = False  # whether the next loss is the first one of a `fit`
        self._steps = self._held = 0  # of this `fit`; -inf once it was reported

    def initial_memory(self):
        return {
            **self.region.initial_state(),
            "losses": [],
            "windows": 0,  # of held updates, since the last trial
            "wait": 1,  # windows until the next one
            "released": -math.inf,  # the step from which updates were free again
            "least": 1,  # losses of a fit that must be known to judge an update
            **loan.initial_loan(),
        }

    def begin(self, controller, memory):
        """Continues to limit updates if an earlier `fit` did."""
        self._suspect = self._trial = self._passed = None
        self._steps = self._held = 0
        self._first = True
        if self.acts:
            controller.hold(self.is_holding(memory, controller.step))

    def is_holding(self, memory, step):
        """Returns whether updates are limited in a step."""
        return memory["until"] > step and self._trial is None

    def restart(self, memory):
        self._suspect = self._trial = self._passed = None
        memory.update(losses=[], best=math.inf)

    def loss_limit(self):
        """Returns the loss above which the next update is skipped, or infinity."""
        if self._trial is not None:
            return self._trial.bound
        suspects = self.acts and self._suspect is not None
        return self._suspect[1] if suspects else math.inf

    def claims(self, moment, memory):
        """Judges earlier updates; True if this step is a consequence of one."""
        if not moment.complete:
            return False
        if self._trial is not None:
            return self._try(moment, memory)
        if self._passed is not None and self._relapses(moment, memory):
            return True
        if self._suspect is None:
            return False
        (trip, bound, nonfinite), self._suspect = self._suspect, None
        if moment.finite and not moment.loss > bound:
            return False
        if not moment.finite and not nonfinite:
            # One bad batch, which was skipped, says nothing about the update.
            self._suspect = trip, bound, True
            return False
        before = f"{_last(memory):.3g} before it"
        words = f"the loss went from {before} to {moment.loss:.3g} after it"
        if not self.acts:
            memory["until"] = float(moment.step + 1 + self.region.quiet)
            trip.row, trip.action = moment.row, "observed"
            trip.words = (
                f"{words}; nothing was changed (use `GradWatch()` to limit updates)"
            )
            moment.trips[:] = [trip]
            return True
        if moment.controller.updates.put_kept_back():
            words += "; the weights were restored"
        self._begin_holding(moment, memory, trip, words)
        return True

    def react(self, moment, memory):
        mine = moment.followed(self)
        for trip in mine:
            moment.trips.remove(trip)
        if not moment.complete or not moment.finite or self._trial is not None:
            return
        if not self.acts and memory["until"] > moment.step:
            return
        self._steps += 1
        if self._first and math.isfinite(moment.loss):
            self._compare_first(moment.loss, memory)
        outcome = moment.rows.scalars["outcome"][moment.row]
        if outcome == REVERTED and mine:
            self._begin_holding(moment, memory, mine[0], "the weights were restored")
        elif self.is_holding(memory, moment.step):
            self._hold(moment, memory)
        elif outcome == APPLIED:
            self._watch(moment, memory, mine)

    def after(self, rows, controller, memory):
        if not self.acts:
            return
        if self._suspect is not None:
            controller.read_next()  # its limit is for that step alone
        due = memory["windows"] >= memory["wait"]
        room = min(len(memory["losses"]), controller.steps_left)
        if due and room >= trial.LEAST:
            memory["windows"] = 0
            self._trial = trial.Trial(controller, memory["losses"])
            controller.hold(False, attentive=trial.STEPS)
        elif not self.is_holding(memory, controller.step):
            loan.give_back(memory, rows, controller, self)

    def end_epoch(self, controller, memory):
        if self._trial is not None:
            ended, self._trial = self._trial, None
            ended.start.put_back(controller)
            self._extend(memory, controller.step)
            controller.hold(True)

    def _extend(self, memory, step):
        """Limits updates until at least `quiet` steps after `step`."""
        end = float(step + self.region.quiet)
        memory["until"] = max(memory["until"], end)

    def _compare_first(self, loss, memory):
        """Checks by the first loss of a `fit` whether earlier losses still apply."""
        self._first = False
        losses = memory["losses"]
        if losses and loss > _bound(losses[-LAST:]):
            memory["least"] = WINDOW
        if memory["least"] > 1:
            losses.clear()

    def _watch(self, moment, memory, tripped):
        """Records the loss of an unlimited step, and begins to judge its update."""
        losses = memory["losses"]
        if math.isfinite(moment.loss):
            # While updates over the bound follow each other, the level must not rise.
            if not losses or not tripped or moment.loss <= max(losses):
                losses.append(moment.loss)
            del losses[:-WINDOW]
        known = len(losses) >= memory["least"]
        if tripped and known and math.isfinite(moment.loss):
            self._suspect = tripped[0], _bound(losses), False
            if self.acts:
                moment.controller.updates.keep()

    def _begin_holding(self, moment, memory, trip, words):
        """Begins to limit updates, and reports it."""
        step, quiet = moment.step, self.region.quiet
        onset = not self.is_holding(memory, step)
        if onset and step - memory["released"] >= quiet:
            # Reset: losses from before the trouble are not comparable.
            memory.update(self.region.initial_state(), wait=1)
        moment.controller.put_slots_back()
        self._hold_on(moment, memory, trip, words)

    def _hold_on(self, moment, memory, trip, words):
        """Limits updates from the next step on, and reports it."""
        self._extend(memory, moment.step + 1)
        memory.update(windows=0, released=-math.inf, calm=moment.step + 1)
        self._suspect = self._passed = None
        radius = memory["radius"]
        trip.row, trip.action = moment.row, "reverted"
        trip.words = f"{words}, and updates are now limited to {radius:.2%} of the "
        trip.words += "weights' norm"
        moment.trips[:] = [trip]
        moment.rows.scalars["trust_radius"][moment.row] = radius
        moment.controller.hold(True)

    def _try(self, moment, memory):
        """Processes a step of a trial; returns True if the trial fails with it."""
        succeeds = self._trial.succeeds(moment.loss, moment.finite)
        if succeeds is None:
            return False
        ended, self._trial = self._trial, None
        if succeeds:
            memory.update(until=-1.0, released=moment.step + 1)
            self._passed = ended
            return False
        what = f"a trial without the limit failed, with a loss of {moment.loss:.3g} "
        what += f"after {_last(memory):.3g} before it"
        self._fail(ended, moment, memory, what)
        return True

    def _relapses(self, moment, memory):
        """Processes a step after a trial has succeeded; returns whether it relapses."""
        if moment.step >= memory["released"] + self.region.quiet:
            self._passed = None
        elif self._passed.relapses(moment.loss):
            start = self._passed.start.step
            what = f"the loss rose above its level before the trial of step {start}"
            self._fail(self._passed, moment, memory, f"{what}, to {moment.loss:.3g}")
            return True
        return False

    def _fail(self, ended, moment, memory, what):
        """Returns to the start of a trial, and limits updates again."""
        ended.start.put_back(moment.controller)
        if memory["wait"] == 1:
            self._probe_first_weights(moment, memory)
        memory["wait"] *= 2
        trip = self._largest(moment)
        trip.what = what
        back = f"the state of step {ended.start.step} was restored"
        self._hold_on(moment, memory, trip, back)

    def _probe_first_weights(self, moment, memory):
        """Probes the first weights: bad first batches may have spoiled later ones."""
        if memory["losses"]:
            loss, trip = float(np.median(memory["losses"])), self._largest(moment)
            trip.what = f"the loss stayed near {loss:.3g}, far above its initial value"
            moment.controller.probe_first_weights(loss, trip)

    def _hold(self, moment, memory):
        """Processes a limited step; the radius follows the loss."""
        scalars, row, step = moment.rows.scalars, moment.row, moment.step
        scalars["trust_radius"][row] = moment.controller.radius_in_force
        held = bool(scalars["held"][row])
        if held:
            memory["calm"] = step + 1
        if math.isfinite(moment.loss):
            memory["losses"].append(moment.loss)
            del memory["losses"][:-WINDOW]
        ended, stalled = self.region.advance(memory, step, held, moment.loss)
        memory["windows"] += ended
        tries = memory["windows"] >= memory["wait"]
        if stalled and not tries and (factor := self.region.shrink(memory)) < 1:
            loan.cut(memory, moment, moment.controller, factor, self.min_lr)
            trip = self._largest(moment)
            trip.what = "the loss does not fall although updates are limited"
            trip.what += f"; the limit is now {memory['radius']:.2%}"
            moment.trips.append(trip)
            if memory["cuts"] == 1:
                self._probe_first_weights(moment, memory)
            moment.controller.hold(True)  # to the smaller radius
        self._held += held
        if self._held >= max(THROTTLED, self._steps / 2):
            trip = self._largest(moment)
            trip.what = (
                f"{self._held} of the {self._steps} updates of this fit were limited"
            )
            trip.action = "clipped"
            trip.words = (
                f"the update was limited to {memory['radius']:.2%} of the weights' norm"
            )
            moment.trips.append(trip)
            self._held = -math.inf
        if not self.is_holding(memory, step + 1):
            memory.update(windows=0, released=step + 1)
            memory["losses"].clear()
            moment.controller.hold(False)

    def _largest(self, moment):
        """Returns a `Trip` for the largest update of a step."""
        ratios = moment.rows.statistic("update_ratio")[moment.row]
        known = np.where(np.isfinite(ratios), ratios, -1.0)
        place = int(known.argmax())
        value = max(float(known[place]), 0.0)
        limit = self.detectors[0].settings.get("limit", math.inf)
        return Trip(moment.row, self.detectors[0], place, value, limit)

    def tighten(self, controller, memory, factor):
        """Limits updates to a trust region `factor` times as large, from now on."""
        until = controller.step + 1 + self.region.quiet
        memory.update(self.region.tightened(memory, factor, until), losses=[])
        memory.update(windows=0, wait=1, released=-math.inf)
        self._suspect = self._trial = self._passed = None
        controller.hold(True)


def _bound(losses):
    """Returns the loss above which an update has done harm."""
    return max(losses) + MARGIN * max(abs(float(np.median(losses))), 1e-30)


def _last(memory):
    """Returns the last known loss, or NaN."""
    return memory["losses"][-1] if memory["losses"] else math.nan
