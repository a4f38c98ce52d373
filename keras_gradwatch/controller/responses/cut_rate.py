"""Cutting the learning rate."""

from keras_gradwatch.controller.responses.base import Response

# The count of tripped steps is multiplied by this in every step.
DECAY = 0.95


class CutRate(Response):
    """Multiplies the learning rate by `factor` where one of its detectors trips.

    Args:
        detectors: The detectors that it follows.
        factor: 0 to 1.
        cooldown: Steps after a cut in which no further one is made.
        min_lr: The rate is never cut below this.
        patience: How many steps must trip within a short time: each counts one, and the
            count decays by `DECAY` a step.
    """

    may_cut = True

    def __init__(self, detectors, factor, cooldown, min_lr, patience=1):
        super().__init__(detectors)
        self.factor, self.cooldown = factor, cooldown
        self.min_lr, self.patience = min_lr, patience

    def initial_memory(self):
        return {"last": None, "count": 0.0, "counted_at": 0}

    def react(self, moment, memory):
        if not moment.followed(self):
            return
        step = moment.step
        count = memory["count"] * DECAY ** (step - memory["counted_at"]) + 1
        memory["counted_at"] = step
        cool = memory["last"] is None or step - memory["last"] > self.cooldown
        # What was counted has decayed a little: 3 in a row are just below 3.
        if cool and -(-count // 1) >= self.patience:
            memory["last"], count = step, 0.0
            moment.controller.cut_rate(moment, self.factor, self.min_lr)
        memory["count"] = count
