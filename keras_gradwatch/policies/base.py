"""Policies: pure functions that change gradients before they are applied."""

from typing import NamedTuple

from keras import ops

from keras_gradwatch.methods import Method
from keras_gradwatch.tensors.sparse import map_values

# A norm this many times its baseline is no noise.
OFF_SCALE = 10.0


class Measurement(NamedTuple):
    """Measurements of the gradients of one step, on the device.

    Attributes:
        step: Scalar int32, the step, from 0.
        loss: Scalar float32, the step's own loss; NaN if unknown.
        global_norm: Scalar float32, before clipping.
        statistics: Tensor [V, 8], float32, columns as in `statistics.names.NAMES`.
            Values that were not measured in this step are NaN.
        finite: Scalar bool: all gradients, and the loss where known, are finite.
        sizes: Tensor [V], float32, the number of elements of each variable.
        kernels: Tensor [V], bool, True where a variable has two or more axes.
        names: List of the V names.
        gradients: List of V float tensors or `SparseRows`, before the policy.
        weights: List of V variables, to be read with `ops.convert_to_tensor`.
    """

    step: object
    loss: object
    global_norm: object
    statistics: object
    finite: object
    sizes: object
    kernels: object
    names: object = ()
    gradients: object = ()
    weights: object = ()


class Policy(Method):
    """Base of all policies.

    A policy receives the gradients that the optimizer would see on one device: summed
    over replicas, unscaled, and averaged over an accumulation window. It has two parts:
    `decide` and `transform`. So a step that needs no change costs no pass over the
    gradients, and keeps the original tensors.
    """

    def decide(self, measured, state, settings):
        """Decides whether to change the gradients of this step, and how.

        Args:
            measured: `Measurement` of the step, before the update, of the V variables
                with a gradient. Its `gradients` and `weights` cost nothing if they are
                not used.
            state: Dict of tensors, as declared by `initial_state`.
            settings: Dict of scalar tensors, as declared by `settings`.

        Returns:
            `(change, limits, new state)`: a scalar bool tensor, a dict of tensors for
            `transform`, and the state, which must never contain a non-finite value.
        """
        raise NotImplementedError

    def transform(self, gradients, limits):
        """Changes the gradients; only used if `decide` returned True.

        Args:
            gradients: List of V float tensors or `SparseRows`, all finite.
            limits: What `decide` returned.

        Returns:
            List of V gradients of the same types, shapes and dtypes.
        """
        raise NotImplementedError


def scale_down(gradient, norm, limit):
    """`gradient · limit / norm` where `norm > limit`, else the gradient unchanged.

    Args:
        gradient: Tensor or `SparseRows`.
        norm: Scalar float32, the norm that is limited.
        limit: Scalar float32.
    """
    return scale(gradient, share(norm, limit))


def share(norm, limit):
    """Returns `min(1, limit / norm)`, and 1 for a norm of 0."""
    over = norm > limit
    return ops.where(over, limit / ops.where(over, norm, 1.0), 1.0)


def scale(gradient, factor):
    """Multiplies a gradient by a float32 factor, in the dtype of the gradient.

    The factor is a scalar, or has one number for each place of the last axis.
    """
    return map_values(lambda g: g * ops.cast(factor, g.dtype), gradient)
