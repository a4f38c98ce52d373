"""Callbacks for `model.fit`: watch, log, protect, stop."""

from keras_gradwatch.callbacks.clipping import GradientClipping
from keras_gradwatch.callbacks.gradwatch import GradWatch
from keras_gradwatch.callbacks.history import GradientHistory
from keras_gradwatch.callbacks.keep_state import KeepState
from keras_gradwatch.callbacks.reduce_lr import ReduceLROnExplosion
from keras_gradwatch.callbacks.rewind import RewindOnExplosion
from keras_gradwatch.callbacks.skip import SkipOnExplosion
from keras_gradwatch.callbacks.tensorboard import GradientTensorBoard
from keras_gradwatch.callbacks.terminate import ExplosionError, TerminateOnExplosion

__all__ = [
    "ExplosionError",
    "GradWatch",
    "GradientClipping",
    "GradientHistory",
    "GradientTensorBoard",
    "KeepState",
    "ReduceLROnExplosion",
    "RewindOnExplosion",
    "SkipOnExplosion",
    "TerminateOnExplosion",
]
