"""Detectors: pure rules that say whether a step has gone wrong, and where."""

from keras_gradwatch.detectors.any_of import AnyOf
from keras_gradwatch.detectors.base import (
    Detector,
    Measurement,
    QuietSteps,
    Verdict,
    whole_step,
)
from keras_gradwatch.detectors.collapse import Collapse
from keras_gradwatch.detectors.dead_units import DeadUnits
from keras_gradwatch.detectors.divergence import Divergence
from keras_gradwatch.detectors.loss_spike import LossSpike
from keras_gradwatch.detectors.non_finite import NonFinite
from keras_gradwatch.detectors.norm_threshold import NormThreshold
from keras_gradwatch.detectors.oscillation import Oscillation
from keras_gradwatch.detectors.update_ratio import UpdateRatio
from keras_gradwatch.detectors.vanishing import Vanishing
from keras_gradwatch.detectors.z_score import ZScore

__all__ = [
    "AnyOf",
    "Collapse",
    "DeadUnits",
    "Detector",
    "Divergence",
    "LossSpike",
    "Measurement",
    "NonFinite",
    "NormThreshold",
    "Oscillation",
    "QuietSteps",
    "UpdateRatio",
    "Vanishing",
    "Verdict",
    "ZScore",
    "whole_step",
]
