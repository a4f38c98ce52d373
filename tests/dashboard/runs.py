"""Runs to look at: trained ones, and one as large as they come."""

import keras
import numpy as np

from keras_gradwatch.callbacks import GradientTensorBoard, GradWatch
from keras_gradwatch.records.events import Event
from keras_gradwatch.records.rows import ADDED, SCALARS, SKIPPED
from keras_gradwatch.records.run import Run
from tests import helper

# A name that would be a picture, and run a script, if it were not text.
# TensorFlow takes none such: it is written into the record.
NAME, HOSTILE = "second", "<img src=x onerror=document.title='bad'>"


def train(log_dir, protected):
    """Trains on digits at a rate that is far too high."""
    x, y = helper.digits(640)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "relu", name=name) for name in ("first", NAME)]
    model = keras.Sequential(
        [keras.Input((64,)), *hidden, keras.layers.Dense(10, name="logits")], name="net"
    )
    helper.compiled(model, keras.optimizers.Adam(1.0), (), run_eagerly=True)
    watching = GradWatch(log_dir, verbose=0, histogram_freq=20) if protected else None
    watching = watching or GradientTensorBoard(log_dir)
    helper.fit(model, x, y, [watching], batch_size=16, epochs=2)
    record = log_dir / "gradwatch" / "record.gwr"
    record.write_bytes(record.read_bytes().replace(NAME.encode(), HOSTILE.encode()))


def large(variables, steps, samples=200):
    """A `Run` with an explosion in its middle."""
    random = np.random.default_rng(0)
    names = tuple(
        f"net/conv{1 + v // 100}_block{1 + v % 100 // 10}_{v}/kernel"
        for v in range(variables)
    )
    middle, worst = steps // 2, variables // 3
    norms = np.exp(random.normal(size=(steps, variables))).astype("float32")
    norms[middle : middle + 30, worst] = 1e20
    norms[middle + 5] = np.inf
    scalars = {
        name: np.exp(random.normal(size=steps)).astype("float32")
        for name in (*SCALARS, *ADDED)
    }
    scalars["outcome"] = np.zeros(steps, "float32")
    scalars["outcome"][middle : middle + 30] = SKIPPED
    sampled = np.linspace(0, steps - 1, samples).astype("int64")
    values = random.random((samples, variables)).astype("float32")
    statistics = ("max_abs", "std", "weight_norm", "update_ratio", "zero_fraction")
    event = Event(middle, "norm", names[worst], 1e20, 1.0, "skipped", "too large")
    return Run(
        name="large",
        directory="",
        steps=np.arange(steps),
        scalars=scalars,
        variables=names,
        norms=norms,
        statistics=dict.fromkeys(statistics, (sampled, values)),
        events=[event],
        report={"verdict": "Exploded.", "exploded": True, "protected": True},
    )
