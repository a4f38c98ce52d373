"""Branches that choose between tensors, on the backend in use."""

import keras
from keras import ops


def cond(predicate, yes, no):
    """Returns `yes()` where `predicate` holds, else `no()`.

    Branches in Python if the predicate is `known`, else in the graph. PyTorch cannot
    branch on an accelerator without waiting for it, so both functions run there, and
    their results are selected. The functions have no side effects, and return tensors
    of the same shapes and dtypes.
    """
    if known(predicate):
        # `lax.cond` outside of a trace would compile both branches in every step.
        return yes() if bool(predicate) else no()
    if keras.config.backend() == "torch":
        return choose(predicate, yes(), no())
    return ops.cond(predicate, yes, no)


def known(predicate):
    """Returns whether Python branches on a tensor.

    True for tensors in host memory on PyTorch, and for untraced ones on JAX, where
    reading the value waits for the device.
    """
    if keras.config.backend() == "torch":
        return predicate.device.type == "cpu"
    if keras.config.backend() == "jax":
        import jax

        return not isinstance(predicate, jax.core.Tracer)
    return False


def choose(predicate, yes, no):
    """Selects between two tensors, or lists of tensors, by a scalar predicate."""
    if isinstance(yes, list | tuple):
        return [choose(predicate, a, b) for a, b in zip(yes, no, strict=True)]
    return ops.where(predicate, yes, no)


def uncompiled(recursive=True):
    """Excludes a function, and if `recursive` its callees, from `torch.compile`."""

    def decorate(function):
        if keras.config.backend() == "torch":
            import torch

            return torch.compiler.disable(function, recursive=recursive)
        return function

    return decorate


def outlined(function):
    """Wraps `function` into a single graph operation, for a rarely taken branch.

    TensorFlow's executor visits every operation of both branches of a condition; a
    function that must not be inlined counts as one.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        if tf.inside_function():
            return tf.function(
                function, autograph=False, experimental_attributes={"_noinline": True}
            )
    return function
