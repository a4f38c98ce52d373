"""The input of a detector, one recorded step, and its output, a verdict."""

import math
from typing import NamedTuple

import numpy as np

# Smallest root mean square that is assumed for weights, so that a kernel that is
# initialized with zeros can be trained.
FLOOR = 0.05
# What a limit may be set on.
QUANTITIES = ("global_norm", "loss", "update_ratio")


def relative_updates(weights, ratios, sizes, kernels, floor=FLOOR):
    """Returns the size of each kernel's update relative to its weights, [V].

    Args:
        weights: Array [V], norm of each variable before the update; NaN if not
            measured.
        ratios: Array [V], norm of the update over that of the weights.
        sizes: Array [V], number of elements of each variable.
        kernels: bool array [V], True for variables with two or more axes.
        floor: Smallest root mean square that is assumed for weights.
    """
    least = floor * np.sqrt(sizes)
    with np.errstate(invalid="ignore", over="ignore"):
        found = ratios * (weights / np.maximum(weights, least))
    found = np.where(weights > 0, found, 0.0)
    found[np.isnan(found)] = math.inf
    found[np.isnan(weights) | ~kernels] = math.nan
    return found


class Observation(NamedTuple):
    """One recorded step, on the host.

    Attributes:
        step: Index of the step, from 0.
        loss: The step's own loss, not the running mean that Keras logs; NaN where it
            is unknown.
        global_norm: Norm of all gradients together, before clipping.
        norms: Array [V], the norm of each variable's gradient; NaN where a variable
            has none.
        finite: Whether all gradients, and the loss where known, are finite.
        sizes: Array [V], the number of elements of each variable.
        kernels: Array [V] of bool, True where a variable has two or more axes.
        statistics: Dict of name to array [V], with the names that `GradientHistory`
            uses; NaN where a statistic was not measured in this step. A name that was
            not measured at all may be missing.
        loss_scale: Factor by which the loss was multiplied before differentiation;
            NaN where there is none. The gradients are unscaled.
        learning_rate: Learning rate of this step.
        limits: The limits of this detector that were in force in this step: what
            `Detector.limits` returned earlier, or `{}`.
    """

    step: int
    loss: float
    global_norm: float
    norms: np.ndarray
    finite: bool
    sizes: np.ndarray
    kernels: np.ndarray
    statistics: dict
    loss_scale: float
    learning_rate: float
    limits: dict

    def statistic(self, name):
        """The statistic `name`, array [V]; all NaN where it was not measured."""
        found = self.statistics.get(name)
        return np.full(len(self.norms), math.nan) if found is None else found

    def quantity(self, name):
        """The value that a limit on `name` applies to.

        Args:
            name: `"global_norm"`, `"loss"` (its magnitude) or `"update_ratio"` (the
                largest of `relative_updates`).

        Returns:
            A float, NaN where the value is unknown.
        """
        if name == "global_norm":
            return self.global_norm
        if name == "loss":
            return abs(self.loss)
        if name == "update_ratio":
            ratios = self.relative_updates()
            return math.nan if np.isnan(ratios).all() else float(np.nanmax(ratios))
        raise ValueError(
            f"`name` must be one of {', '.join(QUANTITIES)}. Received: name={name!r}"
        )

    def relative_updates(self, floor=FLOOR):
        """Size of each kernel's update relative to its weights.

        Formula: `‖Δw‖ / max(‖w‖, floor·√n)` for n elements. It is 0 for weights that
        were all zero, and infinite for an update that is not finite.

        Args:
            floor: Smallest root mean square that is assumed for weights.

        Returns:
            Array [V]; NaN where no update was measured, and for variables with fewer
            than two axes.
        """
        weights, ratios = self.statistic("weight_norm"), self.statistic("update_ratio")
        return relative_updates(weights, ratios, self.sizes, self.kernels, floor)

    def crossed(self, limits=None):
        """The first quantity outside its limits.

        Args:
            limits: Dict of quantity to `(low, high)`. None: those in force in this
                step.

        Returns:
            `(quantity, value, bound)`, or None. An unknown quantity crosses no limit.
        """
        for name, (low, high) in (self.limits if limits is None else limits).items():
            value = self.quantity(name)
            if value > high:
                return name, value, high
            if value < low:
                return name, value, low
        return None


class Verdict(NamedTuple):
    """The result of a detector that trips.

    Attributes:
        variable: Index of the variable that tripped; None for the step as a whole.
        value: The measured value.
        baseline: The value that it was compared with.
    """

    variable: int | None
    value: float
    baseline: float
