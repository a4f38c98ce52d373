"""The base class of all detectors."""

import math

from keras_gradwatch.detectors.checks import checked_limits, checked_observe
from keras_gradwatch.detectors.observation import Observation, Verdict
from keras_gradwatch.methods import Method

__all__ = [
    "Detector",
    "Observation",
    "Verdict",
    "checked_limits",
    "checked_observe",
    "flatten",
]


class Detector(Method):
    """Base of all detectors. A detector reports; it never acts.

    Formula: a step trips unless `low <= quantity <= high` for all of its `limits`.

    A detector runs on the host, between steps, in plain Python and NumPy. It has up to
    three methods: `initial_state` declares what it remembers, `limits` says which
    updates are to be left out within the compiled step, and `observe` takes in one
    recorded step. Anything else that must be configured goes into the constructor and
    into `settings`.

    Attributes:
        kind: The name that its events carry.
        reads: Names of the statistics that it needs beyond `norm` and
            `nonfinite_count`, which are always measured.
        needs_loss: Whether it does nothing where the loss is not known.
        patience: Steps in a row outside of its limits after which such a step is let
            through: by then it is a lasting change of scale. None: never.

    Example: trips when the gradient norm is more than ten times that of the last step.

    ```python
    class Jump(keras_gradwatch.detectors.Detector):
        kind = "jump"

        def initial_state(self, num_variables):
            return {"last": float("inf")}

        def limits(self, state):
            return {"global_norm": (0.0, 10 * state["last"])}

        def observe(self, step, state):
            verdict = super().observe(step, state)
            state["last"] = step.global_norm
            return verdict
    ```
    """

    kind = "explosion"
    reads: tuple[str, ...] = ()
    needs_loss: bool = False
    patience: int | None = None

    def initial_state(self, num_variables):
        """The state before the first step.

        Args:
            num_variables: V, the number of trainable variables.

        Returns:
            Dict of name to float or NumPy array. It is saved with a checkpoint.
        """
        del num_variables
        return {}

    def begin_fit(self, state):
        """Called at the begin of each `fit`, whose data may be others.

        Args:
            state: Dict, to be updated in place.
        """

    def limits(self, state):
        """Outside of which range the update of one of the next steps is left out.

        The check is made in float32 within the compiled step, before the update
        reaches the weights; for `"update_ratio"` the weights are put back. The limits
        hold until the next steps have been read, often one step later, but up to a
        few dozen.

        Args:
            state: Dict, not to be modified.

        Returns:
            Dict of a quantity, one of `"global_norm"`, `"loss"` (its magnitude) and
            `"update_ratio"` (the largest ‖Δw‖ / ‖w‖ of any kernel), to a pair
            `(low, high)`. Empty where a step cannot be judged by itself.
        """
        del state
        return {}

    def observe(self, step, state):
        """Takes in one recorded step, and says whether it tripped.

        Called once for every step, in order. Only `NonFinite` is given steps with a
        gradient or a loss that is not finite.

        Args:
            step: `Observation`.
            state: Dict as `initial_state` returned it, to be updated in place.

        Returns:
            `Verdict`, or None for a step that did not trip.
        """
        found = self.crossed(step, state)
        return None if found is None else Verdict(None, *found[1:])

    def crossed(self, step, state):
        """What crossed the limits in force; see `Observation.crossed`.

        Where none were in force, or only infinite ones, as before a warm-up that was
        read in one go, the limits are those that follow from `state`.
        """
        for low, high in step.limits.values():
            if high != math.inf or low > 0:
                return step.crossed()
        return step.crossed(self.limits(state))

    def describe(self, variable, value, baseline):
        """What tripped, in words.

        Args:
            variable: Path of the variable, or None for the step as a whole.
            value: What was measured, a float.
            baseline: What it was compared with, a float.

        Returns:
            A clause without a full stop.
        """
        where = f" in {variable}" if variable else ""
        return f"{self.kind}{where}: {value:.3g} against {baseline:.3g}"


def flatten(detector):
    """The single detectors of `detector`, a detector, an `AnyOf` of them, or None.

    Raises:
        TypeError: If it is something else.
    """
    if detector is None:
        return []
    if not isinstance(detector, Detector):
        raise TypeError(
            "`detector` must be a keras_gradwatch.detectors.Detector or None. "
            f"Received: detector={detector!r}"
        )
    members = getattr(detector, "detectors", None)
    if members is None:
        return [detector]
    return [single for member in members for single in flatten(member)]
