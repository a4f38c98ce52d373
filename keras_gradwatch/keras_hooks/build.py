"""Creating a model's variables before its first step is traced (TensorFlow)."""

import contextlib

import keras
import tensorflow as tf

from keras_gradwatch.keras_hooks.interception import is_stock
from keras_gradwatch.keras_hooks.model_state import layers_of


def build_ahead(model, step, data):
    """Builds layers, metrics and loss that would be built while the step is traced.

    A skip restores each variable's value from *before* the step, and a variable created
    during the trace cannot be read at its beginning. Keras builds ahead by itself on
    JAX, on PyTorch, and under a strategy; here the same private method is called on
    TensorFlow. If it cannot build the model (a custom step with data of its own), the
    step is traced once for nothing.
    """
    if not _built(model):
        try:
            optimizer = _optimizer_left_alone(model.optimizer)
            with tf.init_scope(), optimizer, unlifted():
                model._symbolic_build(data_batch=data)
        except Exception:  # whatever a user's layers raise on symbolic inputs
            if not tf.inside_function():
                return  # eager: the first step's new variables begin with its batch
            tf.function(step, autograph=False).get_concrete_function(data)
    if tf.inside_function() and not tf.distribute.has_strategy() and is_stock(step):
        _build_optimizer(model.optimizer, model.trainable_weights)


def unlifted():
    """Returns a context for variables that the traced function does not lift.

    If it lifts variables, `tf.function` traces everything a second time.
    """

    def create(creator, **arguments):
        return creator(**{**arguments, "experimental_enable_variable_lifting": False})

    return tf.variable_creator_scope(create)


def _build_optimizer(optimizer, variables):
    """Builds the only optimizer of a stock step ahead, or the step is traced twice.

    Its assignments are not run, as in the first of the two traces of stock Keras.
    """
    if optimizer.built or not variables:
        return

    def build():
        with keras.name_scope(optimizer.name, caller=optimizer):
            optimizer.build(variables)
        optimizer.built = True

    with tf.init_scope():
        if type(optimizer).build.__module__.startswith("keras."):
            with _nothing_assigned(optimizer), unlifted():
                build()
        else:
            tf.function(build, autograph=False).get_concrete_function()


@contextlib.contextmanager
def _nothing_assigned(optimizer):
    """Keeps an optimizer from assigning anything while the context is active."""
    object.__setattr__(optimizer, "assign", lambda *_: None)
    try:
        yield
    finally:
        object.__delattr__(optimizer, "assign")


@contextlib.contextmanager
def _optimizer_left_alone(optimizer):
    """Keeps an optimizer from being built outside the step, as in stock Keras.

    Except for a dynamic loss scale: unbuilt, it would scale the loss by a constant.
    """
    scales = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    if optimizer is None or optimizer.built or scales:
        yield
        return
    optimizer.built = True
    try:
        yield
    finally:
        optimizer.built = False


def _built(model):
    parts = [
        getattr(model, "_compile_metrics", None),
        getattr(model, "_compile_loss", 0),
    ]
    built = all(getattr(part, "built", True) for part in parts)
    return built and all(getattr(layer, "built", True) for layer in layers_of(model))
