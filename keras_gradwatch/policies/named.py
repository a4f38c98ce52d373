"""Policies by name, as Keras has optimizers by name."""

from keras_gradwatch.policies.ada_gc import AdaGC
from keras_gradwatch.policies.adaptive_gradient_clip import AdaptiveGradientClip
from keras_gradwatch.policies.auto_clip import AutoClip
from keras_gradwatch.policies.base import Policy
from keras_gradwatch.policies.centralize import Centralize
from keras_gradwatch.policies.clip_by_global_norm import ClipByGlobalNorm
from keras_gradwatch.policies.normalize_centered import NormalizeCentered
from keras_gradwatch.policies.z_clip import ZClip

# Those that need no argument.
NAMES = {
    "ada_gc": AdaGC,
    "adaptive_gradient_clip": AdaptiveGradientClip,
    "auto_clip": AutoClip,
    "centralize": Centralize,
    "normalize_centered": NormalizeCentered,
    "z_clip": ZClip,
}


def get(policy):
    """Returns the `Policy` for a name, a global norm or a `Policy`; None for None."""
    if policy is None or isinstance(policy, Policy):
        return policy
    if isinstance(policy, str):
        if policy in NAMES:
            return NAMES[policy]()
        raise ValueError(
            f"`policy` must be one of {', '.join(map(repr, NAMES))}, a "
            "keras_gradwatch.policies.Policy, or a number. "
            f"Received: policy={policy!r}"
        )
    if isinstance(policy, int | float) and not isinstance(policy, bool):
        return ClipByGlobalNorm(policy)
    raise TypeError(
        "`policy` must be a keras_gradwatch.policies.Policy, a name such as "
        '"auto_clip", a number (a global norm), or None. '
        f"Received: policy={policy!r}"
    )
