"""The short way through a step in which nothing happens.

Nearly every step of a healthy run is one: its gradients are finite, neither norm nor
loss stands out, nothing is sampled. To see that takes one pass over the gradients, and
a comparison with *lines* that were drawn at the end of the step before: up to where no
detector is going to trip. Then the update is applied, and what is left to do needs not
be waited for: the row, what the detectors remember, the lines for the next step.

Every other step goes the long way, `Step`, which looks at everything anew, from the
same gradients and the same variables. What is decided must be the same on both ways:
the short one never passes by what the long one would act on or record, and what it has
the detectors remember is what that would.
"""

from keras import ops

from keras_gradwatch import row, statistics
from keras_gradwatch.detectors import Detector, Measurement
from keras_gradwatch.step import first_memory

# Norms and losses up to this say nothing of a level, and are not taken in. Nor is there
# anything to be seen of a step at a rate of 0.
LEAST = 1e-30
# Of the global norm, the loss and the learning rate: every step goes the long way.
NO_LINES = (0.0, 0.0, 0.0)


def possible(plan):
    """Whether there is a short way under `plan`."""
    rules = [type(d).lines is not Detector.lines for d in plan.detectors]
    return plan.policy is None and all(rules)


class Quiet:
    """Whether a step is quiet, and what is left to do then.

    Args:
        monitor: The `GradientMonitor`.
        gradients: List of V float tensors or `SparseRows`; None where a variable is
            disconnected.
        weights: List of the V variables.
        loss: Scalar float32.
        rate: Scalar float32, the learning rate in effect.

    Attributes:
        holds: Scalar bool, whether the step is quiet.
    """

    def __init__(self, monitor, gradients, weights, loss, rate):
        self._monitor = monitor
        self._connected = [g is not None for g in gradients]
        self._loss, self._rate = loss, rate
        self._number = ops.copy(monitor.variable("step", 0, "int32"))
        pairs = zip(weights, self._connected, strict=True)
        self._kernels = [len(weight.shape) >= 2 for weight, there in pairs if there]
        squares = statistics.squares([g for g in gradients if g is not None])
        plain, self._norm = statistics.judge_squares(squares)
        self._norms = ops.sqrt(squares)
        looked_at = ops.stack([self._norm, ops.abs(loss), rate])
        lines = ops.copy(monitor.variable("lines", NO_LINES))
        below = ops.all((looked_at <= lines) & (looked_at > LEAST))
        wake = ops.copy(monitor.variable("wake", 0, "int32"))
        self.holds = plain & below & (self._number < wake)
        if any(self._kernels):
            # A network that has died is not quiet.
            mask = ops.convert_to_tensor(self._kernels, "float32")
            self.holds = self.holds & (ops.sum(mask * squares) > 0)

    def record(self):
        """Goes on with what is remembered, and writes the row of a quiet step."""
        monitor, kernels = self._monitor, self._kernels
        scalars = (self._norm, self._norm, self._loss, self._rate)
        line = row.quiet(monitor.plan, scalars, self._norms, self._connected)
        monitor.write_row(self._number, line)
        measured = _nothing_but(kernels)._replace(
            step=self._number,
            loss=self._loss,
            global_norm=self._norm,
            statistics=self._norms[:, None],
        )
        memory = self._memory()
        knobs = monitor.knobs
        for index, (label, detector) in enumerate(monitor.plan.labelled):
            settings = knobs.part(f"detector_{index}")
            changes = detector.advance(measured, memory.part(label), settings)
            for name, value in changes.items():
                memory.put(f"{label}/{name}", value)
        memory.write()
        lines = monitor.variable("lines", NO_LINES)
        rate_line = ops.copy(lines)[2]
        lines.assign(_lines(monitor.plan, memory, knobs, kernels, rate_line))
        monitor.variable("step", 0, "int32").assign(self._number + 1)

    def draw_lines(self, step):
        """Draws the lines for the next step, when the long way has been gone.

        Args:
            step: The `Step`, finished.
        """
        monitor = self._monitor
        knobs, memory = monitor.knobs, self._memory()
        lines = _lines(monitor.plan, memory, knobs, self._kernels, step.rate_line)
        monitor.variable("lines", NO_LINES).assign(lines)
        monitor.variable("wake", 0, "int32").assign(step.wake)

    def _memory(self):
        monitor = self._monitor
        first = first_memory(monitor.plan, len(self._connected), len(self._kernels))
        return monitor.packed("site0", first)


def _lines(plan, memory, knobs, kernels, rate_line):
    """The lines for the next step, tensor [3]: global norm, loss, learning rate."""
    lines = {"global_norm": [], "loss": []}
    for index, (label, detector) in enumerate(plan.labelled):
        state = memory.part(label, latest=True)
        settings = knobs.part(f"detector_{index}")
        own = detector.lines(_nothing_but(kernels), state, settings)
        for name, line in own.items():
            lines[name].append(line)
    lowest = []
    for found in lines.values():
        line = ops.convert_to_tensor(statistics.FLOAT32_MAX, "float32")
        for other in found:
            line = ops.minimum(line, other)
        lowest.append(line)
    return ops.stack([*lowest, rate_line])


def _nothing_but(kernels):
    return Measurement(**{**dict.fromkeys(Measurement._fields), "kernels": kernels})
