"""Cutting the learning rate."""

from keras_gradwatch.controller.responses import loan
from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.streak import (
    count,
    initial_streak,
    is_no_chance,
)


class CutRate(Response):
    """Multiplies the learning rate by `factor` when its detectors trip.

    Args:
        detectors: The detectors that it follows.
        factor: 0 to 1.
        cooldown: Steps after a cut in which no further cut is made.
        min_lr: The learning rate is never cut below this.
        patience: 1: the rate is cut in each tripped step. More: it is cut after at
            least as many tripped steps in a row, if chance does not explain them. A
            step that is not finite neither counts nor ends a row.
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
            wanted = tripped and is_no_chance(memory, self.patience)
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
