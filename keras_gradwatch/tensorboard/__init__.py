"""TensorBoard event files, written without TensorFlow."""

from keras_gradwatch.tensorboard import tags
from keras_gradwatch.tensorboard.heatmap import render
from keras_gradwatch.tensorboard.layout import scalars_layout
from keras_gradwatch.tensorboard.writer import EventWriter

__all__ = ["EventWriter", "render", "scalars_layout", "tags"]
