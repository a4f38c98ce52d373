"""What watching takes of memory: on the device, and on the host as a run grows long.

The memory of the host is the resident set of a process that does nothing but train a
tiny model for many steps, in one `fit`, watched or not; each in a process of its own.

    python benchmarks/memory.py [--steps 100000] [--models mlp resnet]
        [--out docs/benchmarks]

It takes about five minutes on two cores, and reads `/proc`, which Linux has.
"""

import argparse
import gc
import os
import pathlib
import sys
import tempfile

import keras
import numpy as np
import timing
from models import MODELS

from keras_gradwatch.callbacks import GradientHistory, GradWatch

EXECUTION = 50
WATCHING = {
    "stock": lambda folder: [],
    "`GradWatch(log_dir)`": lambda folder: [GradWatch(folder, verbose=0)],
    "`GradientHistory()`": lambda folder: [GradientHistory()],
}


# -- The host --------------------------------------------------------------------------


def resident():
    """MB of memory that this process holds."""
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Resident(keras.callbacks.Callback):
    """Notes the resident memory at the end of chosen epochs."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs, self.found = epochs, []

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 in self.epochs:
            self.found.append(resident())


def train(name, steps):
    """MB after a tenth, a half, and all of the steps of one `fit`."""
    x = np.random.default_rng(0).normal(size=(steps // 10, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    once = EXECUTION if timing.BACKEND != "torch" else 1
    model.compile(keras.optimizers.SGD(1e-4), "mse", steps_per_execution=once)
    memory = Resident((1, 5, 10))
    with tempfile.TemporaryDirectory() as folder:
        callbacks = [*WATCHING[name](folder), memory]
        options = {"batch_size": 1, "epochs": 10, "verbose": 0}
        model.fit(x, x[:, :3], callbacks=callbacks, **options)
    return memory.found


# -- The device ------------------------------------------------------------------------


def ring(name):
    """A row about the monitor of one model of `models.py`, watched by `GradWatch()`."""
    workload = MODELS[name]
    model = workload.build(jit="auto")
    x, y = workload.samples(1)
    watching = [GradWatch(verbose=0)]
    model.fit(x, y, batch_size=workload.batch_size, verbose=0, callbacks=watching)
    monitor = model.gradwatch
    layout, capacity = monitor.layout, monitor.plan.capacity
    every = sum(
        np.prod(v.shape) * np.dtype(v.dtype).itemsize for v in monitor.store.every
    )
    weights = sum(4 * np.prod(v.shape) for v in model.trainable_variables)
    return [
        workload.title,
        len(layout.variables),
        len(layout.statistics),
        layout.applications,
        capacity,
        f"{4 * capacity * layout.width / 1e3:,.0f}",
        f"{every / 1e3:,.0f}",
        f"{weights / 1e3:,.0f}",
    ]


def main(given=None):
    """Measures both, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument(
        "--models", nargs="*", choices=MODELS, default=["mlp", "resnet"]
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder for memory.md")
    arguments = parser.parse_args(given)
    steps = arguments.steps
    found = {n: timing.in_its_own_process(train, n, steps) for n in WATCHING}
    rows = [
        [name, *(f"{mb:.1f}" for mb in of), f"{of[2] - of[0]:+.1f}"]
        for name, of in found.items()
    ]
    page = [
        "# Memory use of watching",
        "",
        *timing.measured("memory.py", given),
        "## The host",
        "",
        "Resident memory in MB of a process that trains a tiny model for",
        f"{steps:,} steps in one `fit`, {EXECUTION} steps per execution.",
        "`GradientHistory()` keeps every step, by design.",
        "",
        *timing.table(
            ["after steps", *(f"{steps // 10 * n:,}" for n in (1, 5, 10)), "growth"],
            rows,
        ),
        "",
        "## The device",
        "",
        "The ring buffer of `GradWatch()` takes 4 · capacity · (10·S + K·V) bytes for",
        "V variables, K recorded statistics of each, and S applications of an",
        "optimizer in a step. It does not grow with the number of steps. Sizes in kB",
        "of the ring, of all variables of `GradWatch()`, and of the model's weights:",
        "",
        *timing.table(
            ["model", "V", "K", "S", "capacity", "ring", "all variables", "weights"],
            [ring(name) for name in arguments.models],
        ),
    ]
    timing.write(arguments.out, timing.file_stem("memory"), page)


if __name__ == "__main__":
    main()
