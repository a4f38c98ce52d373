"""What a detector is: a pure rule that says whether a step has gone wrong."""

from typing import NamedTuple

from keras import ops

from keras_gradwatch.methods import Method

# What a line is multiplied by, so that rounding does not lift it over the limit.
BELOW = 0.9999
# Steps for which lines hold, at most.
AHEAD = 17


class Measurement(NamedTuple):
    """What is known of one step when it is judged.

    Attributes:
        step: Scalar int32, the step, from 0.
        loss: Scalar float32, the step's own loss; NaN where it is not known.
        global_norm: Scalar float32, before clipping.
        statistics: Tensor [V, 8], float32, columns as in `statistics.NAMES`. The last
            two are NaN before the update, and at steps where they were not sampled.
        finite: Scalar bool: all gradients, and the loss where known, are finite.
        sizes: Tensor [V], float32, the number of elements of each variable.
        kernels: Tensor [V], bool, True where a variable has two or more axes.
        loss_scale: Scalar float32, by which the loss was multiplied before it was
            differentiated; NaN where it was not. The gradients are unscaled.
        names: List of the V names; for policies only, as are the two below.
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
    loss_scale: object = float("nan")
    names: object = ()
    gradients: object = ()
    weights: object = ()


class QuietSteps(NamedTuple):
    """What is known of `AHEAD` steps that have gone the short way, or fewer of them.

    Attributes:
        there: Tensor [K], bool; what is not there is 1 in the tensors below.
        count: Scalar float32, how many are there: the first ones.
        loss: Tensor [K], float32.
        global_norm: Tensor [K], float32.
        norms: Tensor [K, P], float32, of the gradients of the connected variables.
        kernels: List of P bools, True where a variable has two or more axes.
    """

    there: object
    count: object
    loss: object
    global_norm: object
    norms: object
    kernels: object


class Verdict(NamedTuple):
    """What a detector answers.

    Attributes:
        tripped: Scalar bool.
        variable: Scalar int32, the index of the variable that tripped; -1 where the
            verdict is about the step as a whole.
        value: Scalar float32, what was measured.
        baseline: Scalar float32, what it was compared with.
    """

    tripped: object
    variable: object
    value: object
    baseline: object


class Detector(Method):
    """Base of all detectors. A detector tells; it never acts.

    Attributes:
        kind: The name that its events carry.
        after_update: True if it judges the update that was made (it reads
            `weight_norm` and `update_ratio`), False if it judges the gradient before.

    What a detector says of a step with non-finite values counts only for `NonFinite`:
    one thing that goes wrong is one event.
    """

    kind = "explosion"
    after_update = False

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "detect" in vars(cls) and "lines" not in vars(cls):
            # Another rule: the short way that it inherits is not its own.
            cls.lines = Detector.lines

    def detect(self, measured, state, settings):
        """Judges one step.

        Args:
            measured: `Measurement`.
            state: Dict of tensors, as `initial_state` declared them.
            settings: Dict of scalar tensors, as `settings` declared them.

        Returns:
            `(Verdict, new state)`. The state must never take in a non-finite value.
        """
        raise NotImplementedError

    def lines(self, measured, state, settings):
        """Within what range none of the next steps trips; the short way of a rule.

        Where the global norm and the loss stay within the ranges of all detectors, up
        to `AHEAD` steps in a row go the short way (see `quiet`): all gradients and the
        loss are finite, a gradient reaches some kernel, no update is measured, and
        `detect` is not called. What the detector remembers is brought up to date
        afterwards, by `advance`.

        Args:
            measured: `Measurement`, of which only `kernels` is known, a list of bools
                of the connected variables.
            state: Dict of tensors, as they are before those steps.
            settings: Dict of scalar tensors.

        Returns:
            Dict with `global_norm` or `loss` (of its magnitude), each a pair of
            scalars: values above the first, up to the second, are within the range. A
            second one of 0 has every step judged, and so has a rule that leaves this
            method as it is.
        """
        del measured, state, settings
        raise NotImplementedError

    def advance(self, steps, state, settings):
        """The state that `detect` would give after steps within its lines.

        Args:
            steps: `QuietSteps`.
            state: Dict of tensors, as they were before the first of them.
            settings: Dict of scalar tensors.

        Returns:
            Dict of what changes of the state.
        """
        del steps, state, settings
        return {}

    def describe(self, variable, value, baseline):
        """What tripped, in words for a person.

        Args:
            variable: Path of the variable, or None for the step as a whole.
            value: What was measured, a float.
            baseline: What it was compared with, a float.

        Returns:
            A clause without a full stop.
        """
        where = f" in {variable}" if variable else ""
        return f"{self.kind}{where}: {value:.3g} against {baseline:.3g}"

    def __or__(self, other):
        from keras_gradwatch.detectors.any_of import AnyOf

        return AnyOf([self, other])


def whole_step(tripped, value, baseline):
    """A verdict about the step as a whole."""
    return Verdict(
        tripped,
        ops.convert_to_tensor(-1, "int32"),
        ops.cast(value, "float32"),
        ops.cast(baseline, "float32"),
    )


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
