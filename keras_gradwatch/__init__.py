"""keras_gradwatch: the gradients of a Keras training run, and protection for it."""

import os
import sys
from typing import TYPE_CHECKING

from keras_gradwatch.version import __version__

__all__ = [
    "Event",
    "ExplosionError",
    "GradWatch",
    "GradWatchModel",
    "GradientClipping",
    "GradientHistory",
    "GradientMonitor",
    "GradientTensorBoard",
    "KeepState",
    "ReduceLROnExplosion",
    "RewindOnExplosion",
    "SkipOnExplosion",
    "TerminateOnExplosion",
    "__version__",
    "callbacks",
    "detectors",
    "diagnose",
    "load",
    "loggers",
    "policies",
    "trace_forward",
    "unwatch",
    "watch",
]


def _is_command():
    """Whether this process is `gradwatch`, or TensorBoard, also by `python -m`."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    module = sys.orig_argv[2] if sys.orig_argv[1:2] == ["-m"] else None
    return name.removesuffix(".exe") in ("gradwatch", "tensorboard") or module in (
        __name__,
        "tensorboard.main",
        "tensorboard",
    )


_no_keras = None  # why Keras could not be imported

# They read files, and answer without loading Keras.
if not _is_command():
    from keras_gradwatch.records.events import Event
    from keras_gradwatch.records.load import load

    try:
        from keras_gradwatch import callbacks, detectors, loggers, policies
        from keras_gradwatch.callbacks import (
            ExplosionError,
            GradientClipping,
            GradientHistory,
            GradientTensorBoard,
            GradWatch,
            KeepState,
            ReduceLROnExplosion,
            RewindOnExplosion,
            SkipOnExplosion,
            TerminateOnExplosion,
        )
        from keras_gradwatch.callbacks.dry_run import diagnose
        from keras_gradwatch.controller.monitor import GradientMonitor
        from keras_gradwatch.model import GradWatchModel, unwatch, watch
        from keras_gradwatch.reports.forward_pass import trace_forward
    except ImportError as error:
        # Where there is no Keras, or no backend, `load` still reads what runs left.
        _no_keras = error


if not TYPE_CHECKING:

    def __getattr__(name):
        if _no_keras is not None and name in __all__:
            raise ImportError(
                f"keras_gradwatch.{name} needs Keras, which cannot be imported: "
                f"{_no_keras}"
            ) from _no_keras
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
