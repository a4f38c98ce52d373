"""Making a model's variables before its first step is traced (TensorFlow)."""

import contextlib

import keras
import tensorflow as tf

from keras_gradwatch.capture.state import layers_of


def build_ahead(model, step, data):
    """Builds layers, metrics and loss that would be built while the step is traced.

    A skip restores what stood in each variable *before* the step, and a variable that
    is made in the middle of the trace cannot be read at its beginning. Keras builds
    ahead by itself on JAX, on PyTorch, and under a distribution strategy; here the
    same private method is called on TensorFlow. Where it cannot build the model (a
    custom step with data of its own), the step is traced once for nothing instead.

    Args:
        model: The watched model.
        step: Its own training step.
        data: What the step is called with.
    """
    if _built(model):
        return
    try:
        with tf.init_scope(), _optimizer_left_alone(model.optimizer):
            model._symbolic_build(data_batch=data)
    except Exception:  # whatever a user's layers raise on symbolic inputs
        if not tf.inside_function():
            return  # eager: the first step's new variables begin with its batch
        tf.function(step, autograph=False).get_concrete_function(data)


@contextlib.contextmanager
def _optimizer_left_alone(optimizer):
    """Keeps an optimizer from being built outside the step, as stock Keras has it.

    All but a dynamic loss scale: unbuilt, it would scale the loss by a constant.
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
