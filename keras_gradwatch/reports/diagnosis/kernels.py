"""What the first step shows of each kernel: its weights and its inputs."""

import math
from dataclasses import dataclass

import numpy as np

from keras_gradwatch.detectors.observation import relative_updates

# A bias's gradient that is smaller than this, relative to its kernel's, is 0 up to
# rounding: a normalization follows, and cancels the bias.
ROUNDING = 1e-6
# √fan_in · std above which the weights of a kernel are large: twice He's.
LARGE_GAIN = 3.0


@dataclass(frozen=True)
class Kernel:
    """A variable with two or more axes, at the first recorded step.

    Attributes:
        name: Path of the variable.
        numbers: Its entry in `RunSummary.variables`.
        gain: √fan_in times the standard deviation of the weights about zero: 1.4 after
            He, about 1 after Glorot initialization. None if it was not measured.
        inputs: Root mean square of one input of the layer. With x the input and δ the
            gradient of the loss with respect to the layer's output before its
            activation, ‖g_kernel‖ is the norm of the sum of δ·xᵀ over the batch, and
            ‖g_bias‖ that of the sum of δ, so their ratio is about ‖x‖. An estimate, too
            high by up to 3 times if the δ of a batch cancel out. None for a layer
            without a bias, or before a normalization.
    """

    name: str
    numbers: dict
    gain: float | None
    inputs: float | None

    @property
    def recurrent(self):
        """Whether it is a recurrent kernel."""
        return "recurrent_kernel" in self.name


def networks(summary):
    """Returns the `Kernel`s of each network with its own optimizer, lists.

    A gradient passes from the last kernel of a network to its first, not from one
    network to the next in the model's order.
    """
    every = kernels(summary)
    named = summary.model.get("networks") or [[kernel.name for kernel in every]]
    return [[k for k in every if k.name in names] for names in named]


def kernels(summary):
    """Returns the `Kernel`s of a run, in the model's order, without embeddings."""
    shapes = summary.model.get("shapes", {})
    return [
        _kernel(summary.variables, name, numbers, shapes[name])
        for name, numbers in summary.variables.items()
        if len(shapes.get(name, ())) >= 2 and "embedding" not in name
    ]


def largest_update(summary):
    """Returns the largest update of a kernel, relative to it as in `UpdateRatio`.

    It is 0 if none was measured; kernels that begin at 0 do not count.
    """
    shapes = summary.model.get("shapes", {})
    known = [k for k in kernels(summary) if "ratio_largest" in k.numbers]
    found = relative_updates(
        np.array([k.numbers.get("weight_first", math.nan) for k in known]),
        np.array([k.numbers["ratio_largest"] for k in known]),
        np.array([math.prod(shapes[k.name]) for k in known]),
        np.ones(len(known), bool),
    )
    return float(max(found[np.isfinite(found)], default=0.0))


def _kernel(variables, name, numbers, shape):
    fan_in, size = math.prod(shape[:-1]), math.prod(shape)
    weight = numbers.get("weight_first")
    gain = None if weight is None else weight / math.sqrt(size) * math.sqrt(fan_in)
    folder, _, own = name.rpartition("/")
    bias = variables.get(f"{folder}/bias", {}).get("norm_first")
    inputs = None
    if own == "kernel" and bias and "norm_first" in numbers:
        ratio = numbers["norm_first"] / bias
        inputs = ratio / math.sqrt(fan_in) if ratio * ROUNDING < 1 else None
    return Kernel(name, numbers, gain, inputs)
