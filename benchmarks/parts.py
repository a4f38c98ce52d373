"""Where the time of a quiet step goes: the parts of watching, one after the other.

Each variant takes a part more into the step than the one before it, until it is
`GradWatch(log_dir)` as it is. TensorFlow only. Variants take turns, as in overhead.py.

    python benchmarks/parts.py [--models mlp resnet] [--rounds 9] [--steps 200]
        [--out docs/benchmarks]

It takes a few minutes on two cores.
"""

import argparse
import contextlib
import pathlib
import sys
import tempfile
from unittest import mock

import tensorflow as tf
import timing
from keras import ops
from models import MODELS

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.keras_hooks import learning_rate as rates
from keras_gradwatch.train_step import frame, step
from keras_gradwatch.train_step.quiet import Quiet

SELDOM = 10**6


def ended(the_frame, quiet):
    """Ends a step that was not looked at any further."""
    never = ~quiet
    the_frame.outcome = frame.Outcome(True, never, never)


def intercepted(the_frame, optimizer, apply, gradients, variables):
    """A step that knows its gradients, and does nothing with them."""
    del optimizer
    the_frame.monitor.build([v.path for v in variables])
    apply(gradients, variables)
    ended(the_frame, tf.constant(True))


def in_a_branch(the_frame, apply, gradients, variables, holds):
    never = the_frame.monitor.variable("never", 0.0)

    def update():
        apply(gradients, variables)
        return 0

    taken = holds | (ops.copy(never) <= 0)  # always, but no optimizer knows
    tf.cond(taken, update, lambda: 0)
    ended(the_frame, taken)


def branching(the_frame, optimizer, apply, gradients, variables):
    """The same, with the update in a branch."""
    del optimizer
    the_frame.monitor.build([v.path for v in variables])
    in_a_branch(the_frame, apply, gradients, variables, tf.constant(False))


def looking(the_frame, optimizer, apply, gradients, variables):
    """The branch waits for the pass over the gradients, and the comparison."""
    the_frame.monitor.build([v.path for v in variables])
    loss = tf.cast(the_frame._loss, tf.float32)
    rate = rates.of(optimizer)
    quiet = Quiet(the_frame.monitor, gradients, variables, loss, rate)
    in_a_branch(the_frame, apply, gradients, variables, quiet.holds)


def replaced(apply):
    return lambda: mock.patch.object(frame.Frame, "_apply", apply)


# Beside stock, in the order of what they do.
PARTS = {
    "gradients intercepted": replaced(intercepted),
    "and the update in a branch": replaced(branching),
    "and the pass over the gradients, and the comparison": replaced(looking),
    "a whole quiet step": contextlib.nullcontext,
}


def prepare(workload, name, folder, steps):
    """The `Fit` of one variant, and what its step is traced in."""
    callbacks, around = [], contextlib.nullcontext
    if name in PARTS:
        around = PARTS[name]
        callbacks = [GradWatch(verbose=0, sample_freq=SELDOM, dense_steps=0)]
    elif name == "`GradWatch(log_dir)`":
        callbacks = [GradWatch(folder / "logs", verbose=0)]
    fit = timing.Fit(
        workload.build(), workload.samples, workload.batch_size, steps, callbacks
    )
    every = step.JUDGE_EVERY if name not in PARTS else SELDOM
    with around(), mock.patch.object(step, "JUDGE_EVERY", every):
        fit.warm_up()
    return fit


def measure(workload, arguments):
    """Rows of the table of one model."""
    names = ["stock", "control: stock again", *PARTS, "`GradWatch(log_dir)`"]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        fits = {n: prepare(workload, n, folder, arguments.steps) for n in names}
        times = timing.take_turns(fits, arguments.rounds)
    stock, rows, before = times["stock"][:, 0], [], 0.0
    for name in names:
        ratio, _, _ = timing.ratio(times[name][:, 0], stock)
        more = timing.more(times[name][:, 0], stock)
        rows.append([name, f"{ratio:.3f}", f"{1e3 * more:+.0f}"])
        rows[-1].append(f"{1e3 * (more - before):+.0f}" if name in PARTS else "")
        before = more
    return rows


def main(given=None):
    """Measures the parts, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=["mlp", "resnet"])
    add("--rounds", type=int, default=9)
    add("--steps", type=int, default=200)
    add("--out", type=pathlib.Path, help="folder for parts.md")
    arguments = parser.parse_args(given)
    page = [
        "# Where the time of a quiet step goes",
        "",
        "Each line has what the line above has, and a part more; the last one also",
        "samples and judges every 50th step, drains the rows, and writes the log.",
        "",
        *timing.measured("parts.py", given),
    ]
    head = ["step", "against stock", "more a step, µs", "for this part, µs"]
    for name in arguments.models:
        rows = measure(MODELS[name], arguments)
        page += [f"## {MODELS[name].title}", "", *timing.table(head, rows), ""]
    timing.write(arguments.out, "parts", page)


if __name__ == "__main__":
    main()
