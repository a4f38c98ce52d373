"""Clipping each unit's gradient relative to its weights."""

import re
from collections.abc import Iterable

import keras
from keras import ops

from keras_gradwatch.methods import number
from keras_gradwatch.policies.base import Policy, scale, share
from keras_gradwatch.statistics.measure import elements
from keras_gradwatch.statistics.names import NAMES


@keras.saving.register_keras_serializable("keras_gradwatch")
class AdaptiveGradientClip(Policy):
    """Clips the gradient of each unit to a fraction of the norm of its weights (AGC).

    Formula: `gᵢ ← gᵢ · min(1, λ · max(‖wᵢ‖, ε) / ‖gᵢ‖)` for each unit i. A unit
    consists of the weights that feed one output: in Keras, those with the same index on
    the last axis. A variable with at most one axis longer than 1 (a bias, a scale) is
    one unit. Without the floor ε, weights that start at zero would never move. (optax
    uses the same units, except for variables with three axes, for which it takes the
    norm over the first axis only.)

    It has no state, and costs one pass over the gradients and one over the weights.

    Args:
        clipping: The fraction λ, > 0. The paper uses 0.01 for batches of 4,096, and
            larger values for small batches. Defaults to `0.01`.
        eps: The floor ε, in units of the weight norm, > 0. Defaults to `1e-3`.
        exclude: List of regular expressions: a variable is not clipped if one of them
            is found in its path. The paper excludes the final layer:
            `exclude=["predictions/"]`. Defaults to `()`, no variable.

    Raises:
        ValueError: If `clipping` or `eps` is not a finite number > 0, or `exclude` is
            not a list of regular expressions.

    Example:

    ```python
    policy = policies.AdaptiveGradientClip(0.01, exclude=["dense_2/", "bias$"])
    callbacks.GradientClipping(policy)
    ```

    Reference: Brock et al. 2021, "High-performance large-scale image recognition
    without normalization" (arXiv 2102.06171).
    """

    def __init__(
        self, clipping: float = 0.01, eps: float = 1e-3, exclude: Iterable[str] = ()
    ) -> None:
        self.settings = {
            "clipping": number(self, "clipping", clipping, above=0),
            "eps": number(self, "eps", eps, above=0),
        }
        self.exclude = _patterns(exclude)

    def get_config(self):
        return {**self.settings, "exclude": list(self.exclude)}

    def decide(self, measured, state, settings):
        norms = measured.statistics[:, NAMES.index("norm")]
        overs, factors = [ops.convert_to_tensor(False, "bool")], []
        everything = zip(
            measured.names, measured.gradients, measured.weights, strict=True
        )
        for index, (name, gradient, weight) in enumerate(everything):
            if any(re.search(pattern, name) for pattern in self.exclude):
                factors.append(None)
                continue
            axes = _unit_axes(weight.shape)
            values, _ = elements(gradient)
            weight = ops.cast(ops.convert_to_tensor(weight), "float32")
            # No square of a fraction of the norm overflows.
            norm = ops.where(norms[index] > 0, norms[index], 1.0)
            size = norm * _unit_norms(values / norm, axes)
            floor = ops.maximum(_unit_norms(weight, axes), settings["eps"])
            limit = settings["clipping"] * floor
            overs.append(ops.any(size > limit))
            factors.append(share(size, limit))
        return ops.any(ops.stack(overs)), {"factors": factors}, state

    def transform(self, gradients, limits):
        return [
            gradient if factor is None else scale(gradient, factor)
            for gradient, factor in zip(gradients, limits["factors"], strict=True)
        ]


def _unit_axes(shape):
    """Returns the axes over which the norm of one unit is taken."""
    vector = sum(length != 1 for length in shape) <= 1
    return tuple(range(len(shape) if vector else len(shape) - 1))


def _unit_norms(values, axes):
    return ops.sqrt(ops.sum(ops.square(values), axis=axes, keepdims=True))


def _patterns(exclude):
    try:
        if not isinstance(exclude, list | tuple):
            raise TypeError
        return tuple(re.compile(pattern).pattern for pattern in exclude)
    except (TypeError, re.error):
        raise ValueError(
            "AdaptiveGradientClip: `exclude` must be a list of regular expressions. "
            f"Received: exclude={exclude!r}"
        ) from None
