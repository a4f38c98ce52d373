"""Policies: pure rules that change gradients before they are applied."""

from keras_gradwatch.policies.ada_gc import AdaGC
from keras_gradwatch.policies.adaptive_gradient_clip import AdaptiveGradientClip
from keras_gradwatch.policies.auto_clip import AutoClip
from keras_gradwatch.policies.base import Policy, scale_down
from keras_gradwatch.policies.centralize import Centralize
from keras_gradwatch.policies.chain import Chain
from keras_gradwatch.policies.clip_by_global_norm import ClipByGlobalNorm
from keras_gradwatch.policies.clip_by_norm import ClipByNorm
from keras_gradwatch.policies.clip_by_value import ClipByValue
from keras_gradwatch.policies.normalize_centered import NormalizeCentered
from keras_gradwatch.policies.z_clip import ZClip
from keras_gradwatch.tensors.sparse import map_values

__all__ = [
    "AdaGC",
    "AdaptiveGradientClip",
    "AutoClip",
    "Centralize",
    "Chain",
    "ClipByGlobalNorm",
    "ClipByNorm",
    "ClipByValue",
    "NormalizeCentered",
    "Policy",
    "ZClip",
    "map_values",
    "scale_down",
]
