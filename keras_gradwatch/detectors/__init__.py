"""Detectors: rules that say whether a step went wrong, and where. NumPy, host only."""

from keras_gradwatch.detectors.any_of import AnyOf
from keras_gradwatch.detectors.base import Detector
from keras_gradwatch.detectors.collapse import Collapse
from keras_gradwatch.detectors.dead_units import DeadUnits
from keras_gradwatch.detectors.divergence import Divergence
from keras_gradwatch.detectors.loss_spike import LossSpike
from keras_gradwatch.detectors.non_finite import NonFinite
from keras_gradwatch.detectors.norm_threshold import NormThreshold
from keras_gradwatch.detectors.observation import Observation, Verdict
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
    "NonFinite",
    "NormThreshold",
    "Observation",
    "Oscillation",
    "UpdateRatio",
    "Vanishing",
    "Verdict",
    "ZScore",
]
