"""Policies: pure rules that change gradients before they are applied."""

from keras_gradwatch.policies.base import Policy, map_values, scale_down
from keras_gradwatch.policies.clip_by_global_norm import ClipByGlobalNorm
from keras_gradwatch.policies.clip_by_norm import ClipByNorm
from keras_gradwatch.policies.clip_by_value import ClipByValue

__all__ = [
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "Policy",
    "map_values",
    "scale_down",
]
