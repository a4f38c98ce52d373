"""Responses: what is done about an event, one idea a file."""

from keras_gradwatch.controller.responses.base import Response
from keras_gradwatch.controller.responses.cut_rate import CutRate
from keras_gradwatch.controller.responses.halt import Halt
from keras_gradwatch.controller.responses.hold import Hold
from keras_gradwatch.controller.responses.rewind import Rewind
from keras_gradwatch.controller.responses.skip import Skip

__all__ = ["CutRate", "Halt", "Hold", "Response", "Rewind", "Skip"]
