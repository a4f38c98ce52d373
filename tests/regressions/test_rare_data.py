"""Rare data are no bad batches: a run that skips them never learns them."""

import keras
import numpy as np

from keras_gradwatch.callbacks import GradWatch
from tests import helper

SETTINGS = {"batch_size": 32, "epochs": 4, "verbose": 0, "shuffle": False}


def network(activation):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, "relu"), keras.layers.Dense(1, activation)]
    return keras.Sequential([keras.Input((8,)), *layers])


def rare_rows(batches):
    """3,200 rows, one of which is marked in column 0 in each of some batches."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3200, 8)).astype("float32")
    marked = np.zeros(3200, bool)
    marked[32 * np.asarray(batches)] = True
    x[:, 0] = 2.0 * marked
    return x, marked.astype("float32")[:, None]


def test_a_rare_class_is_learned_as_in_stock_keras():
    x, y = rare_rows([60, 75, 90])
    found = []
    for watching in ([], [GradWatch(verbose=0)]):
        model = network("sigmoid")
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy")
        model.fit(x, y, **SETTINGS, callbacks=watching)
        found.append(model.predict(x, verbose=0))
    assert all(event.action == "observed" for event in watching[0].events)
    assert len({event.step for event in watching[0].events}) <= 3
    assert found[0][y == 1].mean() > 30 * found[0][y == 0].mean()
    helper.assert_same(found[1], found[0], 1e-5)


def test_rare_large_targets_are_learned():
    """A few are skipped: a hundred times as large as all others, they might be bad."""
    x, marked = rare_rows([5, 30, 45, 50, 70, 72, 90])
    y = x[:, 1:].sum(1, keepdims=True) + 300 * marked
    errors = []
    for watching in ([], [GradWatch(verbose=0)]):
        model = network(None)
        model.compile(keras.optimizers.SGD(3e-4, momentum=0.9), "mse")
        model.fit(x, y, **(SETTINGS | {"epochs": 8}), callbacks=watching)
        errors.append(model.evaluate(x, y, verbose=0))
    watch = watching[0]
    assert 0 < len({e.step for e in watch.events if e.action == "skipped"}) < 6
    assert errors[1] < max(2 * errors[0], 0.05 * y.var())
