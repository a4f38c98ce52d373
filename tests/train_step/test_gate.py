"""What trips the gate: NaN, whatever the compiler makes of a comparison."""

import contextlib

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion
from keras_gradwatch.detectors import NormThreshold
from tests import helper

SIZE, BAD = 8, 1  # of 3 batches
COMPILED = [False, True] if keras.config.backend() == "tensorflow" else ["auto"]


@contextlib.contextmanager
def rewriting(on):
    """TensorFlow's arithmetic rewriting, which turns `not (a < b)` into `a >= b`."""
    if keras.config.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    set_options = tf.config.optimizer.set_experimental_options
    set_options({"arithmetic_optimization": on})
    try:
        yield
    finally:
        set_options({"arithmetic_optimization": False})


@pytest.mark.thorough
@pytest.mark.parametrize("jit_compile", COMPILED)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "make",
    [
        lambda: [GradWatch(verbose=0)],
        lambda: [SkipOnExplosion(detector=NormThreshold(1e9), verbose=0)],
    ],
    ids=["GradWatch", "SkipOnExplosion"],
)
def test_not_finite_trips_with_arithmetic_rewriting(make, bad, jit_compile):
    x, y = helper.regression_data()
    x = x.copy()
    x[BAD * SIZE] = bad
    with rewriting(True):
        model = helper.regression("adam")
        model.compile("adam", "mse", jit_compile=jit_compile)
        history = helper.fit(model, x, y, make(), SIZE)
    assert history["explosions"] == [1]
    assert int(model.optimizer.iterations) == 2
    assert helper.all_finite(model.get_weights())
    assert helper.all_finite([np.asarray(v) for v in model.optimizer.variables])


@pytest.mark.parametrize("on", [True, False])
def test_a_norm_beyond_its_limit_trips(on):
    x, y = helper.regression_data()
    y = y.copy()
    y[BAD * SIZE : (BAD + 1) * SIZE] *= 1e6
    with rewriting(on):
        model = helper.regression("adam")
        skip = SkipOnExplosion(detector=NormThreshold(1e4), verbose=0)
        history = helper.fit(model, x, y, [skip], SIZE)
    assert history["explosions"] == [1]
    assert int(model.optimizer.iterations) == 2


class Often(keras.Sequential):
    """Applies its optimizer nine times in a step, once more than is recorded."""

    def train_step(self, data):
        import tensorflow as tf

        x, y = data
        for _ in range(9):
            with tf.GradientTape() as tape:
                loss = self.compute_loss(x, y, self(x, training=True))
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
        return {"loss": loss}


@pytest.mark.tensorflow
def test_more_applications_than_are_recorded():
    """In an execution of several steps, which keeps the peaks of eight."""
    x, y = helper.regression_data()
    weights = []
    for callbacks in ([], [GradWatch(verbose=0)]):
        keras.utils.set_random_seed(0)
        model = Often([keras.layers.Dense(3)])
        model.compile("sgd", "mse", steps_per_execution=3)
        helper.fit(model, x, y, callbacks, SIZE)
        weights.append(model.get_weights())
    helper.assert_same(*weights)
    assert callbacks[0].events == []
