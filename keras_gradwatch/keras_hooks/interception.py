"""Replaces methods of the optimizers and the model while a step is traced."""

import contextlib
import threading

import keras

from keras_gradwatch.keras_hooks import all_reduce as reduced
from keras_gradwatch.keras_hooks.learning_rate import leaves
from keras_gradwatch.keras_hooks.optimizers import held_optimizers
from keras_gradwatch.keras_hooks.patching import original_of, standing_in
from keras_gradwatch.tensors.branch import uncompiled

# Replica threads share the optimizer, and each traces the step: what stands in for
# `apply` asks here whose step it is in.
_active = threading.local()


def is_stock(step):
    """Returns whether `train_step` is Keras's, which applies one optimizer once."""
    return getattr(step, "__func__", None) is keras.Model.train_step


def active():
    """Returns the step that this thread is tracing, or None."""
    return getattr(_active, "watched", None)


@contextlib.contextmanager
def intercept(model, watched):
    """Calls `watched` whenever the model applies gradients or computes its loss.

    Instance attributes replace the methods until the last thread leaves. On PyTorch the
    monitor's `stand_ins` keeps them, as `torch.compile` recompiles for new functions.
    """
    stand_ins = [(model, "compute_loss", _computing)]
    for optimizer in held_optimizers(model):
        if keras.config.backend() == "jax":
            stand_ins.append((optimizer, "stateless_apply", _applying_stateless))
        else:
            stand_ins.append((optimizer, "apply", _applying))
        stand_ins.append((optimizer, "scale_loss", _scaling))
        for leaf in leaves(optimizer):
            if hasattr(leaf, reduced.HOOK):
                stand_ins.append((leaf, reduced.HOOK, reduced.reducing))
    made = watched.monitor.stand_ins
    for gone in made.keys() - {(id(owner), name) for owner, name, _ in stand_ins}:
        del made[gone]  # a replaced optimizer's
    with contextlib.ExitStack() as stack:
        for owner, name, make in stand_ins:
            stand_in = _stand_in(owner, name, make, made)
            stack.enter_context(standing_in(owner, **{name: stand_in}))
        _active.watched = watched
        stack.callback(setattr, _active, "watched", None)
        yield


def _stand_in(owner, name, make, made):
    original = original_of(owner, name)
    known, stand_in = made.get((id(owner), name), (None, None))
    if known != original:
        stand_in = uncompiled()(make(owner, original))
    if keras.config.backend() == "torch":
        made[id(owner), name] = original, stand_in
    return stand_in


def _applying(optimizer, apply):
    def stand_in(grads, trainable_variables=None):
        watched = active()
        if watched is None:
            return apply(grads, trainable_variables)
        return watched.apply(optimizer, apply, grads, trainable_variables)

    return stand_in


def _applying_stateless(optimizer, apply):
    def stand_in(optimizer_variables, grads, trainable_variables):
        arguments = (optimizer_variables, grads, trainable_variables)
        watched = active()
        if watched is None:
            return apply(*arguments)
        return watched.runner.stateless_apply(watched, optimizer, apply, *arguments)

    return stand_in


def _scaling(optimizer, scale_loss):
    def stand_in(loss):
        watched = active()
        if watched is not None:
            watched.scale_loss(optimizer, loss)
        return scale_loss(loss)

    return stand_in


def _computing(model, compute_loss):
    def stand_in(*args, **kwargs):
        loss = compute_loss(*args, **kwargs)
        watched = active()
        if watched is not None:
            watched.compute_loss(loss)
        return loss

    return stand_in
