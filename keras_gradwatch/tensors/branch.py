"""Branches that choose between tensors, on the backend in use."""

import keras
from keras import ops


def cond(predicate, yes, no):
    """What `yes()` gives where `predicate` holds, and what `no()` gives elsewhere.

    In the order of preference: a branch on the host, where the predicate is known there
    anyway; a branch on the device; both ways and a choice of the results. Nothing waits
    for an accelerator.

    Args:
        predicate: Scalar bool tensor.
        yes: Function of nothing that gives a tensor or a list of tensors, and changes
            nothing.
        no: The same, with results of the same shapes and types.

    Returns:
        A tensor or a list of tensors.
    """
    backend = keras.config.backend()
    if backend == "torch":
        if known(predicate):
            return yes() if bool(predicate) else no()
        return choose(predicate, yes(), no())
    if backend == "jax" and known(predicate):
        # `lax.cond` outside of a trace would compile both branches in every step.
        return yes() if bool(predicate) else no()
    return ops.cond(predicate, yes, no)


def known(predicate):
    """Whether the host can ask for a tensor's value now, without waiting for a device.

    On PyTorch that is what lives in the host's memory; on JAX what is not traced.
    """
    if keras.config.backend() == "torch":
        return predicate.device.type == "cpu"
    if keras.config.backend() == "jax":
        import jax

        return not isinstance(predicate, jax.core.Tracer)
    return False


def choose(predicate, yes, no):
    """Of two tensors, or lists of tensors, the first where `predicate` holds."""
    if isinstance(yes, list | tuple):
        return [choose(predicate, a, b) for a, b in zip(yes, no, strict=True)]
    return ops.where(predicate, yes, no)


def uncompiled(recursive=True):
    """Decorator: a function that `torch.compile` leaves alone.

    Args:
        recursive: Whether it leaves all that the function calls alone, too.
    """

    def decorate(function):
        if keras.config.backend() == "torch":
            import torch

            return torch.compiler.disable(function, recursive=recursive)
        return function

    return decorate


def outlined(function):
    """`function` as one operation of the graph, for a branch that is seldom taken.

    TensorFlow's executor visits every operation of both branches of a condition, also
    of the one that is not taken. A function that must not be inlined counts as one.
    """
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        if tf.inside_function():
            return tf.function(
                function, autograph=False, experimental_attributes={"_noinline": True}
            )
    return function
