"""Which of several losses was not finite; Mask_RCNN#1162."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradWatch
from tests import helper


def log_error(target, prediction):
    return ops.square(ops.log(target) - ops.log(prediction))


@pytest.mark.parametrize("bad", ["size", "count"])
def test_the_loss_is_named_in_the_event(bad):
    random = np.random.default_rng(0)
    x = random.normal(size=(48, 8)).astype("float32")
    y = {n: np.exp(x[:, i : i + 1]) for i, n in enumerate(("size", "count"))}
    y[bad][20] = 0.0  # its logarithm is infinite
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(8, "relu")(inputs)
    outputs = {n: keras.layers.Dense(1, "softplus", name=n)(hidden) for n in y}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"size": log_error, "count": log_error})
    logs = helper.fit(model, x, y, [watch := GradWatch(verbose=0)])
    (event,) = watch.events
    assert event.step == 2
    assert f"the loss of {bad} (inf) is not finite" in event.message
    assert np.isfinite(logs[f"{bad}_loss"]).all() and logs[f"{bad}_loss"][0] > 0
