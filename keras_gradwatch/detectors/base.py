"""The base class of all detectors."""

import math

from keras_gradwatch.detectors.observation import Verdict
from keras_gradwatch.methods import Method


class Detector(Method):
    """Base of all detectors. A detector reports; it never acts.

    Formula: it trips unless `low <= quantity <= high` for all of its `limits`.

    A detector runs on the host, between steps, in plain Python and NumPy. It has up to
    three methods: `initial_state` declares its state, `limits` says which updates the
    compiled step skips, and `observe` receives one recorded step. Options are arguments
    of the constructor, and are stored in `settings`.

    Attributes:
        kind: The kind of its events.
        reads: Names of the statistics that it needs beyond `norm` and
            `nonfinite_count`, which are always measured.
        needs_loss: Whether it does nothing if the loss is unknown.
        patience: Number of steps in a row outside its limits after which such a step
            passes, because the scale has changed for good. None: never.

    Example: a detector that trips when the gradient norm is more than ten times that of
    the last step.

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
            Dict of name to float or NumPy array. It is saved with the state of the run,
            never in the model (see the guide on resuming).
        """
        return {}

    def begin_fit(self, state):
        """Called at the beginning of each `fit`, whose data may be different.

        Args:
            state: Dict, to be updated in place.
        """

    def restart(self, state, num_variables):
        """Resets the state after a rollback, or when the data have changed.

        Args:
            state: Dict, to be updated in place.
            num_variables: V, as for `initial_state`.
        """
        state.clear()
        state.update(self.initial_state(num_variables))

    def limits(self, state):
        """The ranges outside which an update of the next steps is skipped.

        The compiled step checks them in float32, before the update reaches the
        weights; for `"update_ratio"` the weights are restored. The limits remain in
        force until the next steps have been read, often one step later, but up to 50.

        Args:
            state: Dict, not to be modified.

        Returns:
            Dict of a quantity, one of `"global_norm"`, `"loss"` (its magnitude) and
            `"update_ratio"` (the largest ‖Δw‖ / ‖w‖ of any kernel), to a pair
            `(low, high)`. Empty if a single step cannot be judged.
        """
        return {}

    def observe(self, step, state):
        """Judges one recorded step.

        Called in order, once for each step. Steps with a non-finite gradient or loss
        go to `NonFinite` only.

        Args:
            step: `Observation`.
            state: Dict as `initial_state` returned it, to be updated in place.

        Returns:
            `Verdict`, or None or False if the detector does not trip. True stands for a
            `Verdict` with the value that crossed the limits.
        """
        found = self.crossed(step, state)
        return None if found is None else Verdict(None, *found[1:])

    def crossed(self, step, state):
        """What crossed the limits in force; see `Observation.crossed`.

        If there were no finite limits in force, as in a warm-up that is read at once,
        the limits that follow from `state` are used.
        """
        for low, high in step.limits.values():
            if high != math.inf or low > 0:
                return step.crossed()
        return step.crossed(self.limits(state))

    def describe(self, variable, value, baseline):
        """The text of the event: what tripped.

        Args:
            variable: Path of the variable, or None for the step as a whole.
            value: The measured value, a float.
            baseline: The value that it was compared with, a float.

        Returns:
            A clause without a full stop.
        """
        where = f" in {variable}" if variable else ""
        return f"{self.kind}{where}: {value:.3g}, compared with {baseline:.3g}"


def flatten(detector):
    """Returns the single detectors in a `Detector` or None, or raises TypeError."""
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
