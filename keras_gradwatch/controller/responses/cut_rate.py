"""Cutting the learning rate."""

from keras_gradwatch.controller.responses import loan
from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.streak import (
    count,
    exceeds_chance,
    initial_streak,
)


class CutRate(Response):
    """Multiplies the learning rate by `factor` when its detectors trip.

    Args:
        cooldown: Steps after a cut in which no further cut is made.
        min_lr: No learning rate is cut below this.
        patience: If 1, the rate is cut after each tripped step. If larger, it is cut
            only after at least that many tripped steps in a row, and only if chance is
            unlikely to explain them. A non-finite step neither counts nor ends a row.
        lends: Whether a cut is undone after a number of healthy steps; see `loan`.
    """

    may_cut = True

    def __init__(self, detectors, factor, cooldown, min_lr, patience=1, lends=False):
        super().__init__(detectors)
        self.factor, self.cooldown = factor, cooldown
        self.min_lr, self.patience, self.lends = min_lr, patience, lends

    def initial_memory(self):
        # `last` is the step of the last cut.
        return {"last": None, **loan.initial_loan(), **initial_streak()}

    def react(self, moment, memory):
        tripped = bool(moment.followed(self))
        if self.patience == 1:
            wanted = tripped
        elif moment.finite and moment.complete:
            count(memory, tripped)
            wanted = tripped and exceeds_chance(memory, self.patience)
        else:
            return
        last, step = memory["last"], moment.step
        if tripped:
            memory["calm"] = step + 1
        if wanted and (last is None or step - last > self.cooldown):
            memory["last"] = step
            loan.cut(memory, moment, moment.controller, self.factor, self.min_lr)

    def after(self, rows, controller, memory):
        if self.lends:
            loan.give_back(memory, rows, controller, self)
