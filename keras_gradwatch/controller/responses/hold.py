"""Holding updates to a trust region, once one of them was proven to do harm."""

import math

import numpy as np

from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.trust import TrustRegion
from keras_gradwatch.records.rows import APPLIED, REVERTED, Trip

# Losses that an update over the bound is compared with, the newest ones.
WINDOW = 20
# It does harm if the next loss exceeds all of them by this many times their median.
MARGIN = 2.0
# An update that is this many times as large as the weights is put back at once.
INSANE = 1e3


class Hold(Response):
    """Holds updates to a trust region from where one of them has done harm.

    An update over the bound of its detectors is made, and judged by the loss of the
    next step, as in trust-region methods: where that is much worse than the losses
    before, or not finite, the weights are put back, and from then on updates are cut
    down to the trust region; else the update stands, and nothing is reported. What
    cannot wait, an update that is not finite or larger than `INSANE`, is put back in
    its own step.

    Args:
        detectors: Detectors that judge the update.
        region: The `TrustRegion`.
        min_lr: The rate is never cut below this.

    Reference: the acceptance of a step by the actual decrease in trust-region methods
    (Conn, Gould and Toint 2000).
    """

    may_cut = True

    def __init__(self, detectors, region=None, min_lr=0.0):
        super().__init__(detectors)
        self.region = region or TrustRegion()
        self.min_lr = min_lr
        # The trip of the update that is being judged, the bound of the loss, and
        # whether a step since then was not finite.
        self._trial = None

    def initial_memory(self):
        return {**self.region.initial_state(), "losses": []}

    def begin(self, controller, memory):
        """Continues to hold updates where an earlier `fit` did."""
        self._trial = None
        # The data may be others now.
        memory["losses"] = []
        controller.hold(self.is_holding(memory, controller.step))

    def is_holding(self, memory, step):
        """Whether updates are held in a step."""
        return memory["until"] > step

    def loss_limit(self):
        """The loss beyond which the next update is left out; infinite: none."""
        return math.inf if self._trial is None else self._trial[1]

    def claims(self, moment, memory):
        """Judges the update before this step; True if this step is a consequence."""
        if self._trial is None or not moment.complete:
            return False
        (trip, bound, nonfinite), self._trial = self._trial, None
        if moment.finite and not moment.loss > bound:
            return False
        if not moment.finite and not nonfinite:
            # One bad batch, which was left out, says nothing of the update.
            self._trial = trip, bound, True
            return False
        before = memory["losses"][-1] if memory["losses"] else math.nan
        words = f"the loss went from {before:.3g} to {moment.loss:.3g}"
        if moment.controller.put_kept_back():
            words += "; the weights were put back"
        self._begin_holding(moment, memory, trip, words)
        return True

    def react(self, moment, memory):
        mine = moment.followed(self)
        for trip in mine:
            moment.trips.remove(trip)
        if not moment.complete or not moment.finite:
            return
        outcome = moment.rows.scalars["outcome"][moment.row]
        if outcome == REVERTED and mine:
            self._begin_holding(moment, memory, mine[0], "the weights were put back")
        elif self.is_holding(memory, moment.step):
            self._hold(moment, memory)
        elif outcome == APPLIED:
            self._watch(moment, memory, mine)

    def _watch(self, moment, memory, tripped):
        """Takes in the loss of a free step, and begins to judge an update."""
        losses = memory["losses"]
        if math.isfinite(moment.loss):
            # While updates over the bound follow each other, the level must not rise.
            if not losses or not tripped or moment.loss <= max(losses):
                losses.append(moment.loss)
            del losses[:-WINDOW]
        if tripped and losses and math.isfinite(moment.loss):
            level = abs(float(np.median(losses)))
            bound = max(losses) + MARGIN * max(level, 1e-30)
            self._trial = tripped[0], bound, False
            moment.controller.updates.keep()

    def _begin_holding(self, moment, memory, trip, words):
        """Begins to hold updates, and reports it."""
        onset = not self.is_holding(memory, moment.step)
        until = moment.step + 1 + self.region.settings["quiet"]
        if onset:
            # What a run reached before its trouble is no measure of its way back.
            radius = memory["radius"]
            memory.update(self.region.initial_state(), radius=radius)
        memory["until"] = float(until)
        radius = memory["radius"]
        moment.trips[:] = [
            Trip(
                moment.row,
                trip.detector,
                trip.variable,
                trip.value,
                trip.baseline,
                "reverted",
                f"{words}, and updates are held to {radius:.2g} times the weights",
            )
        ]
        moment.rows.scalars["trust_radius"][moment.row] = radius
        moment.controller.hold(True)

    def _hold(self, moment, memory):
        """Takes in a held step; the radius follows the loss."""
        scalars, row = moment.rows.scalars, moment.row
        scalars["trust_radius"][row] = moment.controller.radius_in_force
        held = bool(scalars["held"][row])
        factor = self.region.advance(memory, moment.step, held, moment.loss)
        if factor < 1:
            moment.controller.cut_rate(moment, factor, self.min_lr)
            moment.trips.append(self._stalled(moment))
        if not self.is_holding(memory, moment.step + 1):
            memory["losses"].clear()
            moment.controller.hold(False)

    def _stalled(self, moment):
        """The trip that reports a cut of the rate while updates are held."""
        ratios = moment.rows.statistic("update_ratio")[moment.row]
        known = np.where(np.isfinite(ratios), ratios, -1.0)
        place = int(known.argmax())
        limit = self.detectors[0].settings.get("limit", math.inf)
        value = min(max(float(known[place]), 0.0), limit / 2)
        return Trip(moment.row, self.detectors[0], place, value, limit)

    def tighten(self, controller, memory, factor):
        """Holds updates to a region `factor` times as large, from now on."""
        until = controller.step + 1 + self.region.settings["quiet"]
        memory.update(self.region.tightened(memory, factor, until), losses=[])
        self._trial = None
        controller.hold(True)
