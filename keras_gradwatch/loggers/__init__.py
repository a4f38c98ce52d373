"""Loggers: what TensorBoard gets, handed to a tracker or a file."""

from keras_gradwatch.loggers.base import Logger
from keras_gradwatch.loggers.files import CsvLog, JsonLinesLog
from keras_gradwatch.loggers.mlflow_log import MLflowLog
from keras_gradwatch.loggers.wandb_log import WandbLog

__all__ = ["CsvLog", "JsonLinesLog", "Logger", "MLflowLog", "WandbLog"]
