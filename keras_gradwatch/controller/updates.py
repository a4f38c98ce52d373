"""Measures updates on the host, between two steps."""

import numpy as np
from keras import ops

from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.keras_hooks.moving_average import averages_in, averages_of
from keras_gradwatch.keras_hooks.optimizers import held_optimizers
from keras_gradwatch.statistics.names import OF_UPDATES
from keras_gradwatch.train_step.updates import constrained


class Updates:
    """The weights before a step, and how far the step moved them.

    Measured on the host only if a detector reads it, so the compiled step need not.
    """

    def __init__(self, monitor):
        self._monitor, self._access = monitor, monitor.store.access
        self._before = self._averages = self._kept = None
        self._measured = {}  # step -> (names, weight norms, update ratios)

    @property
    def waiting(self):
        """Whether there are measurements that were not read yet."""
        return bool(self._measured)

    def begin(self):
        """Copies the weights, before a step."""
        model = self._monitor.model
        variables = model.trainable_variables
        averages = [v for o in held_optimizers(model) for v in averages_in(o)]
        copies = self._access.device_copies([*variables, *averages])
        self._before = variables, copies[: len(variables)]
        ids = map(id, averages)
        self._averages = dict(zip(ids, copies[len(variables) :], strict=True))

    def skip(self):
        """Disables the measurement of the next step."""
        self._before = None

    def measure(self, step):
        """Measures the update up to `step`, if the weights before were copied."""
        monitor = self._monitor
        if self._before is None or monitor.layout is None:
            return
        if any(learning_rate.rewrites(o) for o in held_optimizers(monitor.model)):
            return
        pairs = [(o, v) for v, o in zip(*self._before, strict=True)]
        pairs = [(o, v) for o, v in pairs if len(v.shape) >= 2]
        if not pairs:
            return
        kernels = [v for _, v in pairs]
        first = [constrained(o, v) for o, v in pairs]
        weights, moved = self._access.update_norms(first, kernels)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(moved == 0, 0.0, moved / weights)
        self._measured[step] = monitor.names_of(kernels), weights, ratios

    def put_back(self):
        """Restores the weights from before the last execution."""
        self.keep()
        self.put_kept_back()

    def keep(self):
        """Keeps the weights from before the last execution for `put_kept_back`."""
        self._kept = None
        if self._before is not None:
            self._kept = self._before, self._averages

    def put_kept_back(self):
        """Restores the kept weights; returns whether there were any.

        A moving average of the weights becomes that of the restored weights.
        """
        kept, self._kept = self._kept, None
        if kept is None:
            return False
        (variables, weights), before = kept
        averages, averaged = [], []
        with self._access.scope():
            for optimizer in held_optimizers(self._monitor.model):
                pairs = averages_of(optimizer, variables)
                for weight, pair in zip(weights, pairs, strict=True):
                    if pair is not None:
                        average, share = pair  # the weight of a new value
                        # An average that was made in this step begins with the weights.
                        old = before.get(id(average), weight)
                        share = ops.cast(share, average.dtype)
                        averages.append(average)
                        averaged.append(old + share * (weight - old))
        self._access.put_back([*variables, *averages], [*weights, *averaged])
        return True

    def add_to(self, rows):
        """Adds the measurements to the rows of their steps."""
        measured, self._measured = self._measured, {}
        for step, (names, *columns) in measured.items():
            place = np.flatnonzero(rows.steps == step)
            if not len(place):
                continue
            every = [rows.layout.variables.index(name) for name in names]
            for name, column in zip(OF_UPDATES, columns, strict=True):
                rows.add(name, place[0], every, column)
