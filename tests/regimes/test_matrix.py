"""Promises 1 and 4 in every regime: idle is stock Keras, and a bad batch is no batch.

Each combination trains two twins, one watched and one in stock Keras, on the same
batches; and goes on with both, where the watched one's data has a batch more that is
bad.
"""

import itertools

import keras
import numpy as np
import pytest

from tests import helper
from tests.regimes import models, optimizers, pairwise, unsupported, ways
from tests.regimes.twins import COUNT, Combination, Twin, WatchedTwin, digits

TABLES = {
    "placement": ways.PLACEMENTS,
    "precision": ways.PRECISIONS,
    "execution": ways.EXECUTIONS,
    "accumulation": ways.ACCUMULATIONS,
    "feed": ways.FEEDS,
    "optimizer": optimizers.OPTIMIZERS,
    "model": models.MODELS,
}
# Whose names are all in some combination together. The other pairs have nothing to do
# with one another, or are left to the full matrix for their number.
PAIRS = [
    ("accumulation", "optimizer"),
    ("accumulation", "model"),
    ("accumulation", "feed"),
    ("accumulation", "execution"),
    ("accumulation", "precision"),
    ("placement", "precision"),
    ("placement", "execution"),
    ("placement", "feed"),
    ("placement", "optimizer"),
    ("placement", "model"),
    ("execution", "precision"),
    ("execution", "feed"),
]
# What is traced twice or compiled takes seconds.
DEAR = {"xla", "two_steps"}
# The full matrix: each of these with every optimizer and every model.
ROWS = [
    ("one_device", "float32", "graph", "every_batch", "arrays"),
    ("one_device", "float32", "xla", "every_batch", "dataset"),
    ("one_device", "float32", "two_steps", "accumulated", "sample_weights"),
    ("one_device", "mixed_float16", "graph", "accumulated", "generator"),
    ("one_device", "float16", "graph", "every_batch", "train_on_batch"),
    ("one_device", "float64", "eager", "every_batch", "class_weights"),
    ("mirrored", "float32", "graph", "every_batch", "dataset"),
    ("mirrored", "loss_scale", "graph", "every_batch", "py_dataset"),
]
FEW = [
    Combination(*names)
    for names in pairwise.cover(TABLES, PAIRS, unsupported.is_supported, DEAR)
]
# `make test` has the time for every eighth, `make test-thorough` for the rest.
BY_DEFAULT, REST = FEW[::8], [names for i, names in enumerate(FEW) if i % 8]
FULL = [
    names
    for row, optimizer, model in itertools.product(
        ROWS, optimizers.OPTIMIZERS, models.MODELS
    )
    if unsupported.is_supported(names := Combination(*row, optimizer, model))
    and names not in FEW
]


def tolerance(names):
    """How far the twins may be apart: XLA folds anew what has one more reader."""
    if names.execution != "xla":
        return None
    return 1e-5 if names.precision in ("float32", "float64") else 1e-2


@pytest.mark.parametrize(
    "names",
    [pytest.param(names, id="-".join(names)) for names in BY_DEFAULT]
    + [pytest.param(n, id="-".join(n), marks=pytest.mark.thorough) for n in REST]
    + [pytest.param(n, id="-".join(n), marks=pytest.mark.full) for n in FULL],
)
def test_idle_is_stock_keras_and_a_bad_batch_is_no_batch(names, request):
    strategy = None
    if ways.PLACEMENTS[names.placement]:
        strategy = request.getfixturevalue("strategy")
    stock, watched = Twin(names, strategy), WatchedTwin(names, strategy)

    x, y = digits(0, COUNT)
    expected = stock.train(x, y)
    assert all(map(np.isfinite, keras.tree.flatten(expected[0])))
    helper.assert_same(watched.train(x, y), expected, tolerance(names))
    assert not watched.events

    x, y = digits(COUNT, 2 * COUNT)
    bad = 2 if names.model in models.RANDOM else 1
    expected = stock.train(
        helper.without(x, bad, ways.BATCH),
        helper.without(y, bad, ways.BATCH),
        seeds=False,
    )
    # The last row alone: of several replicas, the first one does not see it.
    x = helper.with_nan(x, bad, ways.BATCH, slice(-1, None))
    helper.assert_same(watched.train(x, y, seeds=False), expected, tolerance(names))
    assert [(event.step, event.kind, event.action) for event in watched.events] == [
        (COUNT // ways.BATCH + bad, "nonfinite", "skipped")
    ]


SIMPLEST = Combination(
    "one_device", "float32", "graph", "every_batch", "arrays", "sgd", "dense"
)


@pytest.mark.parametrize(
    ("together", "error"),
    [
        pytest.param(
            together,
            error,
            id="-".join(sorted(together)),
            marks=[pytest.mark.thorough] if i % 4 else [],
        )
        for i, (together, error, _) in enumerate(unsupported.STOCK_FAILS)
    ],
)
def test_what_stock_keras_cannot_run_fails_in_the_same_way(together, error, strategy):
    chosen = {
        dimension: name
        for dimension, table in TABLES.items()
        for name in table
        if name in together
    }
    names = SIMPLEST._replace(**chosen)
    for twin in (Twin, WatchedTwin):
        with pytest.raises(error):
            twin(names, strategy).train(*digits(0, COUNT))


def test_names_belong_to_one_table():
    names = [name for table in TABLES.values() for name in table]
    assert len(names) == len(set(names))
