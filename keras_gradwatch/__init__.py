"""keras_gradwatch: the gradients of a Keras training run, and protection for it."""

import os
import sys

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
    "policies",
    "unwatch",
    "watch",
]


def _is_command():
    """Whether this process is `gradwatch` or `python -m keras_gradwatch`."""
    name = os.path.basename(sys.argv[0]) if sys.argv else ""
    as_module = sys.orig_argv[1:3] == ["-m", __name__]
    return as_module or name in ("gradwatch", "gradwatch.exe")


# The commands read files, and answer without loading Keras.
if not _is_command():
    from keras_gradwatch import callbacks, detectors, policies
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
    from keras_gradwatch.records.events import Event
