"""The short way through a step in which nothing happens.

Nearly every step of a healthy run is one: its gradients are finite, neither norm nor
loss stands out, nothing is sampled. To see that takes one pass over the gradients, and
a comparison with *lines* that were drawn before: within them no detector is going to
trip. Then the update is applied, and the row is written; nothing else.

What the detectors remember is brought up to date from those rows when the lines are to
be drawn anew: after `AHEAD` steps, or when a step does not keep within them. If it
keeps within the new ones, all is well; else it goes the long way, `Step`, which looks
at everything anew, from the same gradients and the same variables. What is decided must
be the same on both ways: the short one never passes by what the long one would act on
or record, and what it has the detectors remember is, but for rounding, what that would.
"""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_gradwatch.detectors import Detector, Measurement, QuietSteps
from keras_gradwatch.detectors.base import AHEAD
from keras_gradwatch.records.rows import SCALARS
from keras_gradwatch.train_step import row, statistics
from keras_gradwatch.train_step.site import MISSING, any_of, size
from keras_gradwatch.train_step.statistics import FLOAT32_MAX as LARGEST
from keras_gradwatch.train_step.statistics import GRADIENT_NAMES, NAMES, SAFE_SQUARE
from keras_gradwatch.train_step.step import first_memory

# Norms and losses up to this say nothing of a level, and are not taken in. Nor is there
# anything to be seen of a step at a rate of 0.
LEAST = 1e-30
# Of the squared global norm, the loss, the learning rate, the number of the step, the
# squares of all kernels and the least squares: above the first row, up to the second
# one. With these, no step is quiet.
NO_LINES = np.zeros((2, 6), "float32")


class Remembered(NamedTuple):
    """What the memory of the detectors is about.

    Attributes:
        plan: The `Plan` in force.
        connected: For each of the V variables, whether it has a gradient.
        kernels: For each of the P connected ones, whether it has two or more axes.
    """

    plan: object
    connected: tuple
    kernels: tuple

    def same_as(self, other):
        """Whether what one says can be taken for what the other says."""
        return self.plan is other.plan and self[1:] == other[1:]


def possible(plan):
    """Whether there is a short way under `plan`."""
    rules = [type(d).lines is not Detector.lines for d in plan.detectors]
    # What is remembered of updates is not in what brings detectors up to date.
    judging = [d for d in plan.detectors if d.after_update and plan.judges_always]
    rules += [not d.initial_state(1) for d in judging]
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
        connected = tuple(g is not None for g in gradients)
        pairs = list(zip(weights, connected, strict=True))
        kernels = tuple(len(weight.shape) >= 2 for weight, there in pairs if there)
        self._sizes = [size(w.shape) for w, there in pairs if there]
        self._about = Remembered(monitor.plan, connected, kernels)
        monitor.remember(self._about)
        self._loss, self._rate = loss, rate
        self._number = ops.copy(monitor.variable("step", 0, "int32"))
        squares = statistics.squares([g for g in gradients if g is not None])
        self._squares, total = squares, ops.sum(squares)
        self._norm = ops.sqrt(total)
        # What stands between gradients and update, in as few operations as possible.
        least = ops.min(ops.where(ops.equal(squares, 0.0), 1.0, squares))
        # A network that has died is not quiet.
        alive = 1.0
        if any(kernels):
            alive = ops.sum(squares * ops.convert_to_tensor(kernels, "float32"))
        clock = ops.cast(self._number, "float32")
        self._found = ops.stack([total, ops.abs(loss), rate, clock, alive, least])
        self.holds = self._within(ops.copy(self._lines))

    @property
    def _lines(self):
        return self._monitor.variable("lines", NO_LINES)

    def _within(self, lines):
        low, top = ops.unstack(lines, 2)
        return ops.all((self._found > low) & (self._found <= top))

    def holds_after_all(self):
        """Draws new lines, and returns whether the step keeps within those."""
        memory = settle(self._monitor, self._about)
        rate_line = ops.copy(self._lines)[1, 2]
        wake = ops.copy(self._monitor.variable("wake", 0, "int32"))
        return self._within(self._draw(memory, self._number, rate_line, wake))

    def settle(self):
        """Brings the detectors up to date with the steps before this one."""
        settle(self._monitor, self._about)

    def passes(self, matrix):
        """Whether no detector that judges updates trips over this one, a scalar bool.

        Args:
            matrix: Tensor [P, 2] of `statistics.update_statistics`.
        """
        about, knobs = self._about, self._monitor.knobs
        shape = (len(about.kernels), len(GRADIENT_NAMES))
        unknown = ops.zeros(shape, "float32") + MISSING
        known = {
            "step": self._number,
            "loss": self._loss,
            "global_norm": self._norm,
            "statistics": ops.concatenate([unknown, matrix], axis=1),
            "sizes": ops.convert_to_tensor(self._sizes, "float32"),
            "kernels": ops.convert_to_tensor(about.kernels),
        }
        measured = Measurement(**{**dict.fromkeys(Measurement._fields), **known})
        tripped = [
            d.detect(measured, {}, knobs.part(f"detector_{i}"))[0].tripped
            for i, d in enumerate(about.plan.detectors)
            if d.after_update
        ]
        return ~any_of(tripped)

    def record(self, updates=None):
        """Writes the row of a quiet step.

        Args:
            updates: Tensor [P, 2] of `statistics.update_statistics`, or None.
        """
        monitor, about = self._monitor, self._about
        scalars = (self._norm, self._norm, self._loss, self._rate)
        norms = ops.sqrt(self._squares)
        line = row.quiet(about.plan, scalars, norms, updates, about.connected)
        monitor.write_row(self._number, line)
        monitor.variable("step", 0, "int32").assign(self._number + 1)

    def finish(self, step):
        """Draws the lines for the next steps, when the long way has been gone.

        Args:
            step: The `Step`, finished.
        """
        monitor, following = self._monitor, self._number + 1
        monitor.settled.assign(following)
        monitor.variable("wake", 0, "int32").assign(step.wake)
        self._draw(_memory(monitor, self._about), following, step.rate_line, step.wake)

    def _draw(self, memory, begin, rate_line, wake):
        """Draws and returns the lines for the steps from `begin` on, tensor [2, 6]."""
        knobs = self._monitor.knobs
        known = dict.fromkeys(Measurement._fields)
        measured = Measurement(**{**known, "kernels": list(self._about.kernels)})
        # Tensors: in a `floatx` of 16 bits, the square of a plain number is infinite.
        least, largest = (ops.convert_to_tensor(x, "float32") for x in (LEAST, LARGEST))
        low = {"global_norm": least, "loss": least}
        top = {"global_norm": largest, "loss": largest}
        for index, (label, detector) in enumerate(self._about.plan.labelled):
            state = memory.part(label, latest=True)
            settings = knobs.part(f"detector_{index}")
            for name, own in detector.lines(measured, state, settings).items():
                low[name] = ops.maximum(low[name], own[0])
                top[name] = ops.minimum(top[name], own[1])
        last = ops.minimum(begin + AHEAD, wake) - 1
        # Squares as in `found`: of the norm, and those that are neither denormal nor
        # the rest of what has vanished.
        low["global_norm"] = ops.square(low["global_norm"])
        top["global_norm"] = ops.minimum(ops.square(top["global_norm"]), LARGEST)
        parts = [*low.values(), LEAST, -1.0, 0.0, SAFE_SQUARE]
        parts += [*top.values(), rate_line, last, LARGEST, LARGEST]
        parts = [ops.cast(part, "float32") for part in parts]
        lines = ops.reshape(ops.stack(parts), (2, len(parts) // 2))
        self._lines.assign(lines)
        return lines


def settle(monitor, about):
    """Brings what the detectors remember up to date with the quiet steps so far.

    There are `AHEAD` of them at most, they have followed each other, and `about` is
    that of all.

    Args:
        monitor: The `GradientMonitor`.
        about: `Remembered`.

    Returns:
        `Packed`, what they remember.
    """
    begin = ops.copy(monitor.settled)
    end = ops.copy(monitor.variable("step", 0, "int32"))
    # The rows are in the ring, which holds more of them.
    rows = monitor.rows(begin, AHEAD)
    # That of a quiet step is finite; nothing else may ever be taken in.
    there = ops.isfinite(rows[:, SCALARS.index("global_norm")])
    there = there & (ops.arange(AHEAD) < end - begin)
    rows = ops.where(there[:, None], rows, 1.0)
    places = [i for i, connected in enumerate(about.connected) if connected]
    steps = QuietSteps(
        there=there,
        count=ops.sum(ops.cast(there, "float32")),
        loss=rows[:, SCALARS.index("loss")],
        global_norm=rows[:, SCALARS.index("global_norm")],
        norms=ops.take(rows, [len(SCALARS) + i * len(NAMES) for i in places], axis=1),
        kernels=list(about.kernels),
    )
    memory, knobs = _memory(monitor, about), monitor.knobs
    for index, (label, detector) in enumerate(about.plan.labelled):
        state = memory.part(label)
        settings = knobs.part(f"detector_{index}")
        for name, value in detector.advance(steps, state, settings).items():
            value = ops.where(steps.count > 0, value, state[name])
            memory.put(f"{label}/{name}", value)
    memory.write()
    monitor.settled.assign(end)
    return memory


def _memory(monitor, about):
    first = first_memory(about.plan, len(about.connected), len(about.kernels))
    return monitor.packed("site0", first)
