"""What several test files need: data, models, and comparisons bit for bit."""

import functools
import gc
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.records.history import History
from keras_gradwatch.tensors.reading import read

ROOT = pathlib.Path(__file__).parents[1]
BACKEND = keras.config.backend()
# How near runs are to stock Keras's: bit for bit, but that XLA folds anew what has one
# more reader.
EXACT = 1e-5 if BACKEND == "jax" else None


@functools.cache
def digits(count):
    """`(x, y)`: scikit-learn's handwritten digits, float32 from 0 to 1, int32."""
    x, y = load_digits(return_X_y=True)
    return (x[:count] / 16).astype("float32"), y[:count].astype("int32")


def layers(dropout=0.2):
    """A list of layers with BatchNorm and, unless it is 0, Dropout; for 10 classes."""
    return [
        keras.layers.Dense(16),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        *([keras.layers.Dropout(dropout)] if dropout else []),
        keras.layers.Dense(10),
    ]


def functional(base=keras.Model, dropout=0.2):
    """A functional model on digits; `base` is the class that is called."""
    inputs = outputs = keras.Input((64,))
    for layer in layers(dropout):
        outputs = layer(outputs)
    return base(inputs, outputs)


def subclassed(base=keras.Model, dropout=0.2):
    """A subclassed model on digits, unbuilt."""

    class Subclassed(base):
        def __init__(self):
            super().__init__()
            self.inner = layers(dropout)

        def call(self, x, training=False):
            for layer in self.inner:
                takes = isinstance(
                    layer, keras.layers.BatchNormalization | keras.layers.Dropout
                )
                x = layer(x, training=training) if takes else layer(x)
            return x

    return Subclassed()


def compiled(model, optimizer="sgd", metrics=("accuracy",), **kwargs):
    """`model`, compiled for classification from logits."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=list(metrics), **kwargs)
    return model


def regression(optimizer="sgd", units=3, seed=0, **kwargs):
    """A built linear model [5] -> [units] with the loss of least squares."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(units)])
    model.compile(optimizer, "mse", **kwargs)
    return model


def regression_data(count=24, units=3, seed=0):
    """`(x, y)` for `regression`: float32 [count, 5] and [count, units]."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 5)).astype("float32")
    return x, random.normal(size=(count, units)).astype("float32")


def with_nan(x, batch, size, part=slice(None)):
    """A copy of `x` in which batch number `batch` of `size` rows is NaN."""
    x = x.copy()
    x[batch * size : (batch + 1) * size][part] = np.nan
    return x


def without(x, batch, size):
    """A copy of `x` without batch number `batch` of `size` rows."""
    return np.delete(x, np.s_[batch * size : (batch + 1) * size], axis=0)


def few(kept, values):
    """`values` as parameters of a test, those that are not in `kept` as `thorough`."""
    return [
        v
        if v in kept
        else pytest.param(
            *(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.thorough
        )
        for v in values
    ]


def fit(model, x, y, callbacks=(), batch_size=8, **kwargs):
    """`model.fit` without shuffling and printing; returns the history's dict."""
    kwargs = {"shuffle": False, "verbose": 0, **kwargs}
    return model.fit(
        x, y, batch_size=batch_size, callbacks=list(callbacks), **kwargs
    ).history


def values(variables):
    """Their values, a list of arrays."""
    return [read(v) for v in variables]


class Recorded(WatchingCallback, History):
    """What was recorded of a run, without a detector, and without further readings."""

    def __init__(self):
        WatchingCallback.__init__(self)
        History.__init__(self)

    def on_rows(self, rows, events):
        self.append(rows, events)


def sync(model):
    """Brings the weights up to date, for who reads them during an epoch of `fit`."""
    if BACKEND == "jax":
        model.jax_state_sync()


def state(model, *optimizers, seeds=True):
    """All that a run leaves in a model: dict of lists of arrays."""
    optimizers = optimizers or (model.optimizer,)
    metrics = model.metrics
    return {
        "variables": values(model.variables if seeds else model.weights),
        "optimizers": [a for o in optimizers for a in values(o.variables)],
        "metrics": [a for m in metrics for a in values(m.variables)],
    }


def assert_same(actual, expected, tolerance=EXACT):
    """Compares nested dicts, lists and arrays; bit for bit without a tolerance.

    What is no float is the same in any case.
    """
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for key in expected:
            assert_same(actual[key], expected[key], tolerance)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_same(a, b, tolerance)
    elif tolerance is None or np.asarray(expected).dtype.kind not in "fV":
        np.testing.assert_array_equal(actual, expected, strict=True)
    else:
        np.testing.assert_allclose(actual, expected, tolerance, tolerance)


def without_our_keys(history):
    """A history's dict without the two log keys of this package."""
    assert {"grad_norm", "explosions"} <= set(history)
    return {k: v for k, v in history.items() if k not in ("grad_norm", "explosions")}


def all_finite(arrays):
    """Whether nothing in a list of arrays is NaN or infinite."""
    return all(np.isfinite(a).all() for a in arrays)


def forget_graphs():
    """Frees what models that are gone have left behind.

    TensorFlow keeps the graph of a step in which variables were made, stock Keras's,
    too: the garbage collector would go through all of them again and again.
    """
    keras.backend.clear_session()
    gc.collect()
    if BACKEND != "tensorflow":
        return
    from tensorflow.python.framework import func_graph

    for graph in gc.get_objects():
        if type(graph) is func_graph.FuncGraph:
            func_graph.dismantle_func_graph(graph)
    gc.collect()


def tables(text):
    """The Markdown tables in a text: for each a list of rows, dicts by column."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        head, _, *rows = (
            [cell.strip() for cell in line.strip("|\n").split("|")]
            for line in block.splitlines()
        )
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def run_python(code, *arguments, **environment):
    """Runs `code` in a process of its own, and returns what it printed."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    env |= environment
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout
