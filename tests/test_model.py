"""What can be watched, and what is said where something cannot."""

import types

import keras
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch import GradientMonitor, GradWatchModel, unwatch, watch
from keras_gradwatch.callbacks import GradientHistory, GradWatch
from keras_gradwatch.detectors import NormThreshold
from tests import helper


@pytest.mark.parametrize(
    "model", [None, 3, "model", keras.layers.Dense(1), keras.Model, object()]
)
def test_not_a_model(model):
    with pytest.raises(TypeError, match=r"Keras 3 models.*Received: model="):
        watch(model)


def test_a_model_of_tf_keras():
    names = {"__module__": "tf_keras.src.engine.training"}
    legacy = types.new_class("Model", exec_body=lambda space: space.update(names))
    with pytest.raises(TypeError, match=r"tf_keras.*import keras"):
        watch(legacy())


def test_wrong_arguments():
    model = helper.regression()
    with pytest.raises(ValueError, match=r"policy.*'clip'"):
        watch(model, policy="clip")
    with pytest.raises(TypeError, match=r"detector.*5"):
        watch(model, detector=5)
    assert "gradwatch" not in vars(model)


def test_no_optimizer_at_fit_and_only_observed():
    """Keras's own error, as without the package."""
    x, y = helper.regression_data(8)
    errors = []
    for prepare in (lambda model: model, watch):
        model = prepare(keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)]))
        with pytest.raises(ValueError) as error:
            helper.fit(model, x, y)
        errors.append(str(error.value))
    assert errors[0] == errors[1]


def test_the_monitor():
    model = watch(helper.regression())
    assert isinstance(model.gradwatch, GradientMonitor)
    assert model.gradwatch.step == 0 and model.gradwatch.drain() is None
    helper.fit(model, *helper.regression_data(16))
    rows = model.gradwatch.drain()
    assert rows.steps.tolist() == [0, 1] and model.gradwatch.drain() is None


def test_the_monitor_is_no_part_of_the_model():
    model = helper.regression("adam", metrics=["mae"])
    x, y = helper.regression_data(8)
    helper.fit(model, x, y)
    before = [len(model.variables), len(model.metrics), len(model.layers)]
    watch(model)
    helper.fit(model, x, y, [GradWatch(verbose=0)])
    assert [len(model.variables), len(model.metrics), len(model.layers)] == before
    assert model.gradwatch.store.every


def test_a_bare_trainer():
    """Anything with Keras's `Trainer`, not only a `keras.Model`."""
    trainer_class = keras.Model.__mro__[1]
    assert trainer_class.__name__.endswith("Trainer")

    class Bare(trainer_class, keras.layers.Layer):
        def __init__(self):
            keras.layers.Layer.__init__(self)
            trainer_class.__init__(self)
            self.dense = keras.layers.Dense(3)

        def build(self, shape):
            self.dense.build(shape)

        def call(self, x):
            return self.dense(x)

    x, y = helper.regression_data(24)
    keras.utils.set_random_seed(0)
    model = Bare()
    model.build((None, 5))
    model.compile("sgd", "mse")
    seen = GradientHistory()
    helper.fit(model, x, y, [seen, GradWatch(verbose=0)])
    assert seen.steps.tolist() == [0, 1, 2] and np.isfinite(seen.global_norm).all()


def test_a_name_that_is_taken():
    model = helper.regression()
    model.gradwatch = keras.layers.Dense(2, name="mine")
    with pytest.raises(ValueError, match=r"model\.gradwatch=<Dense name=mine"):
        watch(model)
    assert model.gradwatch.name == "mine" and "train_step" not in vars(model)


def test_a_make_train_function_of_ones_own():
    """As `fit` calls it: without an argument. It still traces a new plan."""

    class Bare(keras.Sequential):
        def make_train_function(self):
            super().make_train_function()

    model = Bare([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    x, y = helper.regression_data(8)
    helper.fit(model, x, y, [GradientHistory()])
    before = model.get_weights()
    helper.fit(model, np.full_like(x, np.nan), y, [watching := GradWatch(verbose=0)])
    assert [e.action for e in watching.events] == ["skipped"]
    helper.assert_same(model.get_weights(), before)


def test_a_standing_detector_tells():
    x, y = helper.regression_data(24)
    y[8:16] *= 1e4
    model = watch(helper.regression(), detector=NormThreshold(1e3))
    helper.fit(model, x, y)
    events = model.gradwatch.drain().events()
    assert [(e.step, e.kind, e.action) for e in events][:1] == [(1, "norm", "observed")]
    assert events[0].value > events[0].baseline == 1e3
    assert isinstance(events[0], keras_gradwatch.Event)


def test_unwatch_of_what_is_not_watched():
    model = helper.regression()
    assert unwatch(model) is model


def test_a_model_that_is_part_of_a_watched_one():
    """Inner models are called, not trained: one row a step, with all variables."""
    inner = GradWatchModel(inputs := keras.Input((5,)), keras.layers.Dense(4)(inputs))
    outer = keras.Sequential([inner, keras.layers.Dense(3)])
    outer.compile("sgd", "mse")
    seen = GradientHistory()
    helper.fit(outer, *helper.regression_data(16), [seen])
    assert seen.steps.tolist() == [0, 1] and len(seen.variables) == 4
    assert inner.gradwatch.step == 0
    assert inner.gradwatch.steps_are_stock


@pytest.mark.tensorflow
def test_an_untried_strategy_is_refused():
    import tensorflow as tf

    strategy = tf.distribute.experimental.CentralStorageStrategy(["CPU:0"], "CPU:0")
    with strategy.scope():
        model = helper.regression()
    with pytest.raises(
        ValueError, match="cannot watch a model under CentralStorageStrategy"
    ):
        helper.fit(model, *helper.regression_data(8), [GradientHistory()])


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def test_a_dataset_with_weights_and_a_frozen_layer():
    x, y = helper.regression_data(16)
    batches = [(x[i : i + 8], y[i : i + 8], np.ones(8, "float32")) for i in (0, 8)]
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, trainable=False), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((5,)), *layers])
    model.compile("sgd", "mse", weighted_metrics=["mae"])
    seen = GradientHistory()
    model.fit(Batches(batches), shuffle=False, callbacks=[seen], verbose=0)
    assert len(seen.variables) == 2 and seen.steps.tolist() == [0, 1]
