"""Facts about Keras and TensorFlow that the package stands on.

A failure here says that the ground has moved: each docstring tells what would break,
and where.
"""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gradwatch.keras_hooks import momentum
from keras_gradwatch.keras_hooks import moving_average as averages
from tests import helper


def slots(**kwargs):
    optimizer = keras.optimizers.SGD(0.1, **kwargs)
    optimizer.build([keras.Variable(np.zeros(2, "float32"))])
    return optimizer


def step(gradient, **kwargs):
    """The update of a variable of zeros by SGD at a rate of 1."""
    variable = keras.Variable(np.zeros(np.shape(gradient), "float32"))
    optimizer = keras.optimizers.SGD(1.0, **kwargs)
    optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    return -keras.ops.convert_to_numpy(variable)


def test_fact_1_clips_are_taken_in_each_replica(strategy):
    """Else backends/replicas.py need not sum over the replicas before it clips."""
    with strategy.scope():
        variable = keras.Variable(np.zeros(1, "float32"))
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=1.0)
        optimizer.build([variable])

    @tf.function
    def run():
        def replica():
            optimizer.apply([tf.constant([5.0])], [variable])

        strategy.run(replica)

    run()
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [-2.0])


def test_fact_3_no_native_clip_survives_what_is_not_finite():
    """Else a policy might let such gradients through."""
    assert np.isnan(step([np.inf, 1.0], global_clipnorm=1.0)).any()
    assert np.isnan(step([np.nan, 1.0], clipnorm=1.0)).all()
    np.testing.assert_equal(step([np.inf, np.nan], clipvalue=1.0), [1.0, np.nan])


def test_fact_4_the_native_norm_overflows():
    """Else statistics.py need not divide by the largest magnitude."""
    assert not np.allclose(
        step([3e25, 4e25], global_clipnorm=1.0), [0.6, 0.8], equal_nan=True
    )


def test_fact_5_repeated_ids_are_not_summed_before_the_norm():
    """Else tensors/sparse.py need not make rows unique."""
    slices = tf.IndexedSlices(tf.ones((4, 1)), tf.fill([4], 2), tf.constant([3, 1]))
    np.testing.assert_allclose(tf.linalg.global_norm([slices]), 2.0)


def test_fact_7_a_zero_gradient_is_no_skip():
    """Else a skip might hand over zeros instead of branching."""
    variable = keras.Variable(np.ones(1, "float32"))
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    for gradient in (1.0, 0.0):
        before = keras.ops.convert_to_numpy(variable)
        optimizer.apply([tf.constant([gradient])], [variable])
    assert keras.ops.convert_to_numpy(variable) != before
    assert int(optimizer.iterations) == 2


def test_fact_9_a_schedule_is_read_through_one_private_method():
    """keras_hooks/learning_rate.py hooks it to cut a schedule."""
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    optimizer = keras.optimizers.SGD(schedule)
    assert callable(optimizer._get_current_learning_rate)
    with pytest.raises(TypeError):
        optimizer.learning_rate = 0.5
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    object.__setattr__(optimizer, "_get_current_learning_rate", lambda: 0.25)
    optimizer.apply([tf.ones(1)], [variable])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [-0.25])
    np.testing.assert_allclose(float(optimizer.learning_rate), 0.25)
    saved = keras.optimizers.serialize(optimizer)
    assert saved["config"]["learning_rate"]["class_name"] == "ExponentialDecay"


def test_fact_9_a_float_rate_is_a_variable():
    """keras_hooks/learning_rate.py assigns to it on the device."""
    assert isinstance(slots().learning_rate, keras.Variable)
    inner = keras.optimizers.SGD(0.25)
    outer = keras.optimizers.LossScaleOptimizer(inner)
    assert outer.inner_optimizer is inner and outer.learning_rate is inner.learning_rate
    members = keras.optimizers.OptimizerMap(inner)
    multi = keras.optimizers.MultiOptimizer(members)
    assert hasattr(multi, "optimizers")


def test_fact_10_train_step_runs_as_python_only_while_it_is_traced():
    """Every decision must be a tensor, and every number in a variable."""
    calls = []

    class Counting(keras.Sequential):
        def train_step(self, data):
            calls.append(1)
            return super().train_step(data)

    model = Counting([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    helper.fit(model, *helper.regression_data(64))
    assert len(calls) <= 2


def test_fact_13_paths_are_not_unique():
    """names.unique tells them apart."""

    class Block(keras.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(1,), name="weight")

    class Two(keras.Model):
        def __init__(self):
            super().__init__(name="two")
            self.parts = [Block(name="block"), Block(name="block")]
            for part in self.parts:
                part.build(None)

    first, second = Two().trainable_variables
    assert first.path == second.path


def test_fact_14_the_logged_loss_is_a_running_mean():
    """Else detectors could read the logs."""
    logged = []

    class Log(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            logged.append(logs["loss"])

    class Output(keras.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(), initializer="ones")

        def call(self, x):
            return x * self.weight

    model = keras.Sequential([keras.Input((1,)), Output()])
    model.compile(keras.optimizers.SGD(0.0), "mae")
    x = np.array([[0.0], [0.0], [9.0]], "float32")
    helper.fit(model, x, np.zeros_like(x), [Log()], batch_size=1)
    np.testing.assert_allclose(logged, [0.0, 0.0, 3.0])


def test_fact_16_private_names_of_gradient_accumulation():
    """keras_hooks/accumulation.py reads them."""
    optimizer = slots(gradient_accumulation_steps=2)
    variable = optimizer._trainable_variables[0]
    assert optimizer._get_variable_index(variable) == 0
    accumulator = optimizer._accumulated_gradients[0]
    for count, expected in ((1, 3.0), (2, 0.0)):
        optimizer.apply([tf.fill([2], 3.0)], [variable])
        assert int(optimizer._iterations.value) == count
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(accumulator), [expected] * 2
        )
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [-0.3] * 2, 1e-6)


def test_fact_22_functional_use_rewrites_the_bases_of_a_class():
    """Else model.py need not make a sibling class for the functional style."""

    class Own(keras.Model):
        pass

    inputs = keras.Input((1,))
    Own(inputs, inputs)
    assert Own.__bases__ != (keras.Model,)


def test_the_private_walk_over_layers():
    """keras_hooks/layers.py needs layers in lists and in layers of layers."""

    class Nest(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inner = [keras.layers.Dense(1), {"a": keras.layers.Dropout(0.1)}]

    class Nested(keras.Model):
        def __init__(self):
            super().__init__()
            self.nests = {"nest": Nest()}

    model = Nested()
    kinds = {type(layer).__name__ for layer in model._flatten_layers()}
    assert {"Nested", "Nest", "Dense", "Dropout"} <= kinds


def test_the_private_symbolic_build():
    """keras_hooks/build.py builds an unbuilt model with its metrics by it."""
    model = helper.compiled(helper.subclassed())
    assert "data_batch" in inspect.signature(model._symbolic_build).parameters
    assert not model.built and not model._compile_metrics.built
    x, y = helper.digits(8)
    model._symbolic_build(data_batch=(x, y))
    assert model.built and model._compile_metrics.built and model._compile_loss.built
    assert len(model.trainable_variables) == 6


def test_the_order_in_which_fit_calls():
    """A callback configures the step in `set_model`, before it is traced."""
    order = []

    class Order(keras.callbacks.Callback):
        def set_model(self, model):
            order.append("set_model")
            super().set_model(model)

        def on_train_begin(self, logs=None):
            order.append("on_train_begin")

    class Model(keras.Sequential):
        def make_train_function(self, force=False):
            order.append("make_train_function")
            return super().make_train_function(force)

        def train_step(self, data):
            order.append("train_step")
            return super().train_step(data)

    model = Model([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    helper.fit(model, *helper.regression_data(8), [Order()])
    kept = list(dict.fromkeys(order))
    assert kept == ["set_model", "make_train_function", "on_train_begin", "train_step"]


def test_the_step_is_read_from_the_instance():
    """model.py watches in place by a function on the instance."""
    model = helper.regression()
    own, calls = model.train_step, []

    def train_step(data):
        calls.append(1)
        return own(data)

    object.__setattr__(model, "train_step", train_step)
    helper.fit(model, *helper.regression_data(8))
    assert calls


def test_apply_and_scale_loss_are_what_the_stock_step_calls():
    """keras_hooks/interception.py stands in for them on the instance."""
    model, calls = helper.regression(), []

    def stand_in(name):
        own = getattr(model.optimizer, name)

        def method(*args, **kwargs):
            calls.append(name)
            return own(*args, **kwargs)

        object.__setattr__(model.optimizer, name, method)

    stand_in("apply")
    stand_in("scale_loss")
    model.train_function = None
    helper.fit(model, *helper.regression_data(8))
    assert calls[:2] == ["scale_loss", "apply"]


@pytest.mark.parametrize("kind", list(momentum.NAMES), ids=lambda kind: kind.__name__)
def test_where_keras_keeps_momentums_and_how_they_decay(kind):
    """Without a gradient, a momentum is its decay times that of the step before."""
    name = momentum.NAMES[kind][1]
    optimizer = kind(0.01, **({name: 0.8} if name == "momentum" else {}))
    variable = keras.Variable(np.ones((2, 3), "float32"))
    seen = []
    for gradient in (1.0, 0.0):
        values = np.full((2, 3), gradient, "float32")
        optimizer.apply([keras.ops.convert_to_tensor(values)], [variable])
        (found,) = momentum.momentums_of(optimizer, [variable])
        seen.append(keras.ops.convert_to_numpy(found.variable).copy())
    assert (seen[0] != 0).all() and found.decay == optimizer.get_config()[name]
    np.testing.assert_allclose(seen[1], found.decay * seen[0], rtol=1e-5)


def test_where_keras_keeps_the_moving_averages():
    """Under another name, the trust region would leave them as they are."""
    optimizer = slots(use_ema=True)
    (variable,) = optimizer._trainable_variables
    (average,) = getattr(optimizer, averages.AVERAGES)
    assert average.shape == variable.shape
    ((found, _),) = averages.averages_of(optimizer, [variable])
    assert found is average
