"""One script, and what it says is the same on every backend that is installed."""

import importlib.util
import json

import keras
import numpy as np
import pytest

from tests import helper

BACKENDS = ("tensorflow", "jax", "torch")

# Weights and batches come from NumPy; what is printed is everything that was recorded.
SCRIPT = """
import json
import keras, numpy as np
from keras_gradwatch import callbacks, policies

random = np.random.default_rng(0)
images = random.random((320, 6, 6, 2)).astype("float32")
words = random.integers(0, 20, (320, 5))
classes = random.integers(0, 4, 320)
weight = np.ones(320, "float32")
images[40] = np.nan  # in the third batch of 16
weight[230] = 1e5  # in the fifteenth


def network():
    image, text = keras.Input((6, 6, 2)), keras.Input((5,), dtype="int32")
    a = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(image)
    a = keras.layers.BatchNormalization(name="norm")(a)
    a = keras.layers.Flatten()(keras.layers.ReLU()(a))
    b = keras.layers.Embedding(20, 6, name="words")(text)
    b = keras.layers.LSTM(7, name="lstm")(b)
    both = keras.layers.Concatenate()([a, b])
    model = keras.Model([image, text], keras.layers.Dense(4, name="logits")(both))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05, 0.9), loss, metrics=["accuracy"])
    own = np.random.default_rng(1)
    model.set_weights([own.normal(0.5, 0.2, w.shape) for w in model.get_weights()])
    return model


told = {}
for name, options in {
    "observed": None,
    "GradWatch": {},
    "clipped": {"policy": policies.ClipByGlobalNorm(0.5)},
}.items():
    history = callbacks.GradientHistory()
    asked = [history]
    if options is not None:
        asked = [callbacks.GradWatch(verbose=0, **options), history]
    model = network()
    logs = model.fit(
        [images, words], classes, 16, sample_weight=weight, epochs=2, verbose=0,
        shuffle=False, callbacks=asked,
    ).history
    told[name] = {
        "norm": history.global_norm.tolist(),
        "clipped": history.clipped_norm.tolist(),
        "loss": history.loss.tolist(),
        "applied": history.applied.tolist(),
        "statistics": {n: v.tolist() for n, v in history.statistics.items()},
        "events": [(e.step, e.kind, e.variable, e.action) for e in history.events],
        "logs": logs,
        "weights": [float(np.linalg.norm(w)) for w in model.get_weights()],
    }
print("TOLD", json.dumps(told))
"""


def told(backend):
    """What the script says on a backend, a nested dict."""
    printed = helper.run_python(SCRIPT, KERAS_BACKEND=backend)
    return json.loads(printed.split("TOLD ")[1])


@pytest.fixture(scope="module")
def here():
    return told(keras.config.backend())


def installed(backend):
    return importlib.util.find_spec(backend) is not None


@pytest.mark.parametrize(
    "backend", [b for b in BACKENDS if b != keras.config.backend() and installed(b)]
)
def test_the_same_statistics_and_events_as_on(backend, here):
    there = told(backend)
    for name in here:
        mine, other = here[name], there[name]
        for key in ("events", "applied"):
            assert mine[key] == other[key], (name, key)
        # Which gradients a NaN reaches is the backends' own affair (that of a ReLU at
        # NaN is 0 on JAX): of such steps the norm is compared, not the statistics.
        sound = np.isfinite(mine["norm"])
        assert sound.sum() >= 2
        for key in ("norm", "clipped", "loss"):
            close(mine[key], other[key], (name, key))
        if name != "observed":
            close(mine["weights"], other["weights"], (name, "weights"))
        for key in mine["logs"]:
            close(mine["logs"][key], other["logs"][key], (name, key))
        deviation = np.asarray(mine["statistics"]["std"], "float64")[sound]
        for key in mine["statistics"]:
            a = np.asarray(mine["statistics"][key], "float64")[sound]
            b = np.asarray(other["statistics"][key], "float64")[sound]
            # A mean is as exact as the values that it is the mean of.
            slack = 1e-4 * deviation if key == "mean" else 0.0
            near = np.abs(a - b) <= slack
            close(a, np.where(near, a, b), (name, key))


def close(a, b, where):
    """Compares two arrays to 1e-4."""
    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=str(where))
