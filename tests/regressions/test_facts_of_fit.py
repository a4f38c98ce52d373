"""Facts about `fit` that the package stands on; see `test_keras_facts.py`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gradwatch.callbacks import GradientHistory
from tests import helper


def test_fact_6_a_skipped_overflow_leaves_batch_norm_and_the_loss_nan():
    """Else train_step/watched.py need not put back what a skipped step changed."""
    model = keras.Sequential(
        [keras.Input((5,)), keras.layers.BatchNormalization(), keras.layers.Dense(3)]
    )
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    x, y = helper.regression_data(16)
    logs = helper.fit(model, helper.with_nan(x, 0, 8), y)
    assert helper.all_finite(helper.values(model.trainable_variables))
    assert not helper.all_finite(helper.values(model.non_trainable_variables))
    assert np.isnan(logs["loss"]).all()


def test_fact_11_summaries_do_not_compile(tmp_path):
    """Else a step could write its own logs."""
    writer = tf.summary.create_file_writer(str(tmp_path))

    class Writing(keras.Sequential):
        def train_step(self, data):
            with writer.as_default():
                tf.summary.scalar("norm", 1.0, step=0)
            return super().train_step(data)

    model = Writing([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse", jit_compile=True)
    with pytest.raises(tf.errors.OpError, match="unsupported operations"):
        helper.fit(model, *helper.regression_data(8))


def test_fact_12_the_batch_axis_of_keras_tensorboard_begins_anew(tmp_path):
    """Else `GradientTensorBoard` need not count steps by itself."""
    steps = []

    class Board(keras.callbacks.TensorBoard):
        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            steps.append(self._global_train_batch)

    model = helper.regression()
    board = Board(tmp_path, update_freq=1)
    for _ in range(2):
        helper.fit(model, *helper.regression_data(16), [board])
    assert steps == [1, 2, 1, 2]


def test_fact_15_terminate_on_nan_comes_too_late():
    """Else protecting in the same step would be needless."""
    x, y = helper.regression_data(24)
    model = helper.regression()
    stop = keras.callbacks.TerminateOnNaN()
    helper.fit(model, helper.with_nan(x, 1, 8), y, [stop])
    assert not helper.all_finite(model.get_weights())


def test_fact_20_arithmetic_is_folded_anew_where_a_gradient_has_one_more_reader():
    """Else tests/conftest.py need not switch it off."""

    def train(callbacks):
        keras.utils.set_random_seed(7)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        model = helper.compiled(helper.functional(), optimizer)
        helper.fit(model, *helper.digits(96), callbacks, 16)
        return helper.state(model)

    options = {"arithmetic_optimization": True}
    tf.config.optimizer.set_experimental_options(options)
    try:
        actual, expected = train([GradientHistory()]), train([])
    finally:
        options = {"arithmetic_optimization": False}
        tf.config.optimizer.set_experimental_options(options)
    with pytest.raises(AssertionError):
        helper.assert_same(actual, expected)
    helper.assert_same(actual, expected, 1e-6)


def test_fact_21_a_loss_scale_has_no_floor():
    """Else overflow.py need not stop it at 1."""
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    variable = keras.Variable(np.zeros(1, "float32"))
    optimizer.build([variable])
    apply = tf.function(lambda: optimizer.apply([tf.constant([np.inf])], [variable]))
    for _ in range(15 + 150):
        apply()
    assert float(optimizer.dynamic_scale) == 0.0
    assert int(optimizer.iterations) == 0


def test_fact_23_only_what_is_registered_can_be_loaded(tmp_path):
    """keras_gradwatch/__init__.py imports the model eagerly."""

    class Own(keras.Sequential):
        pass

    keras.saving.register_keras_serializable("other")(Own)
    Own([keras.Input((5,)), keras.layers.Dense(1)]).save(tmp_path / "model.keras")
    keras.saving.get_custom_objects().pop("other>Own")
    with pytest.raises(TypeError, match="Could not locate class 'Own'"):
        keras.saving.load_model(tmp_path / "model.keras")
