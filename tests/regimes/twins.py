"""A watched model and its twin in stock Keras, trained on the same data."""

import contextlib
from typing import NamedTuple

import keras
import numpy as np

from keras_gradwatch import policies, watch
from keras_gradwatch.callbacks import GradWatch
from tests import helper
from tests.regimes import models, optimizers, ways

COUNT = 3 * ways.BATCH  # two steps an execution leave a ragged end


class Combination(NamedTuple):
    """One way to train one model: a name out of each table."""

    placement: str
    precision: str
    execution: str
    accumulation: str
    feed: str
    optimizer: str
    model: str


def build(names, strategy=None, **options):
    """The compiled model of a `Combination`.

    Args:
        names: `Combination`.
        strategy: The strategy that a mirrored one is placed under.
        **options: Further arguments of its optimizer.
    """
    precision = ways.PRECISIONS[names.precision]
    options = {
        **options,
        **precision.get("optimizer", {}),
        **ways.ACCUMULATIONS[names.accumulation],
    }
    mirrored = ways.PLACEMENTS[names.placement]
    scope = strategy.scope() if mirrored else contextlib.nullcontext()
    keras.utils.set_random_seed(3)
    with scope, ways.dtype_policy(precision["policy"]):
        model = models.MODELS[names.model]()
        optimizer = optimizers.OPTIMIZERS[names.optimizer](**options)
        optimizer = precision.get("wrap", lambda inner: inner)(optimizer)
        model.compile(
            optimizer,
            **models.loss_for(names.model),
            **precision.get("compile", {}),
            **ways.EXECUTIONS[names.execution],
        )
        if names.optimizer in optimizers.BUILT_AHEAD:
            if not model.built:
                model(np.zeros((1, 64), "float32"))
            model.optimizer.build(model.trainable_variables)
    return model


def state(model, seeds=True):
    """All that a run leaves in a model, in every replica: dict of lists of arrays.

    BatchNorm's moving statistics are each replica's own.
    """
    parts = {
        "variables": model.variables if seeds else model.weights,
        "optimizer": model.optimizer.variables,
        "metrics": model.metrics_variables,
    }
    held = model.distribute_strategy.experimental_local_results
    return {
        part: [array.numpy() for v in variables for array in held(v.value)]
        for part, variables in parts.items()
    }


def digits(begin, end):
    """`(x, y)`: some handwritten digits."""
    x, y = helper.digits(end)
    return x[begin:], y[begin:]


class Twin:
    """A model that trains on digits, as stock Keras has it.

    Args:
        names: `Combination`.
        strategy: See `build`.

    Attributes:
        model: The compiled model.
        events: List of `Event`; stock Keras has none.
    """

    def __init__(self, names, strategy=None):
        self.names = names
        self.model = build(names, strategy)
        self.events = []

    def train(self, x, y, seeds=True):
        """Trains for one epoch.

        Returns:
            The logs, and the state that the run left, with that of seeds or without.
        """
        logs = self._feed(*models.data_for(self.names.model, x, y))
        return logs, state(self.model, seeds)

    def _feed(self, *data):
        return ways.FEEDS[self.names.feed](self.model, *data)


class WatchedTwin(Twin):
    """The same, watched and protected by all that `GradWatch` has.

    It may not cut the rate: a run from which a batch is left out has the same rate.
    """

    def _feed(self, *data):
        if self.names.feed == "train_on_batch":
            # No callback there: what stands is a policy, which skips all the same.
            watch(self.model, policy=policies.ClipByGlobalNorm(1e9))
            logs = super()._feed(*data)
            self.events += self.model.gradwatch.drain().events()
            return logs
        watching = GradWatch(min_lr=1e9, verbose=0)
        logs = ways.FEEDS[self.names.feed](self.model, *data, callbacks=[watching])
        self.events += watching.events
        return helper.without_our_keys(logs)
