"""keras_gradwatch: see the gradients of real training steps, and survive explosions."""

from keras_gradwatch import callbacks, detectors, policies
from keras_gradwatch.controller.monitor import GradientMonitor
from keras_gradwatch.model import GradWatchModel, unwatch, watch
from keras_gradwatch.records.events import Event
from keras_gradwatch.version import __version__

__all__ = [
    "Event",
    "GradWatchModel",
    "GradientMonitor",
    "__version__",
    "callbacks",
    "detectors",
    "policies",
    "unwatch",
    "watch",
]
