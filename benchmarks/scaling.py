"""Time by model size: more parameters, more variables.

The model is as cheap as can be: its loss is a sum over its variables, so that the
gradients are there for one pass over memory each. What `GradWatch` adds to a step is
the median of differences to stock Keras, measured in pairs; a second stock model is
the control. Beside it: the norms of all gradients by themselves, in GB/s, against
copying the same memory.

    python benchmarks/scaling.py [--parameters 1e6 1e7 1e8] [--variables 10 100 1000]
        [--rounds 5] [--steps 200] [--out docs/benchmarks]

It takes about an hour on two cores, most of it with 100 million parameters, and 4 GB of
memory.
"""

import argparse
import gc
import os
import pathlib
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import timing
from keras import ops

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.statistics.measure import squares

FEW, SMALL = 10, 1e6  # variables and parameters where the other one is varied
REPEATS = 10


class Sum(keras.layers.Layer):
    """x · Σ w / √n over all weights w, of which there are n."""

    def __init__(self, variables, parameters):
        super().__init__()
        self.count = variables
        self.rows = max(int(parameters / variables / 100), 1)

    def build(self, shape):
        self.parts = [
            self.add_weight(
                shape=(self.rows, 100),
                initializer=keras.initializers.RandomNormal(stddev=0.01, seed=i),
                name=f"part_{i}",
            )
            for i in range(self.count)
        ]
        self.root = (self.count * self.rows * 100) ** 0.5

    def call(self, x):
        return x * (sum(ops.sum(part) for part in self.parts) / self.root)


def model(variables, parameters):
    """A compiled model of that many variables and, all in all, parameters."""
    made = keras.Sequential([keras.Input((1,)), Sum(variables, parameters)])
    made.compile(keras.optimizers.SGD(1e-4), "mse")
    return made


def samples(steps):
    """`(x, y)` of batch size 1: y is noise, so that gradients never vanish."""
    y = np.random.default_rng(0).normal(size=(steps, 1)).astype("float32")
    return np.ones_like(y), y


def added(variables, parameters, arguments):
    """What a step takes, in ms.

    Returns:
        `(stock, control − stock, GradWatch − stock)`, medians; and the number of
        `GradWatch`'s events, each of which would cost time of its own.
    """
    with tempfile.TemporaryDirectory() as log_dir:
        watch = GradWatch(log_dir, verbose=0)
        watching = {"watched": [watch]}
        fits = {
            name: timing.Fit(
                model(variables, parameters),
                samples,
                1,
                arguments.steps,
                watching.get(name, []),
            )
            for name in ("stock", "control", "watched")
        }
        for fit in fits.values():
            fit.warm_up()
        found = timing.take_turns(fits, arguments.rounds)
    stock, control, watched = (found[n][:, 0] for n in ("stock", "control", "watched"))
    del fits
    keras.backend.clear_session()
    gc.collect()
    return (
        float(np.median(stock)),
        timing.more(control, stock),
        timing.more(watched, stock),
        len(watch.events),
    )


# -- Against the memory's speed --------------------------------------------------------


def best(function):
    """The shortest of several times, in seconds; the first call is not counted."""
    times = []
    for _ in range(REPEATS + 1):
        begin = time.perf_counter()
        function()
        times.append(time.perf_counter() - begin)
    return min(times[1:])


def traced(function):
    """`function` of a list of tensors, compiled as a training step would be."""
    if timing.BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if timing.BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


def speeds(parameters):
    """Rows of GB/s, of the norms of all gradients and of copies of that memory."""
    size = int(parameters / FEW)
    arrays = [np.full(size, i + 1.0, "float32") for i in range(FEW)]
    moved = 4 * size * FEW / 1e9
    gradients = [ops.convert_to_tensor(array) for array in arrays]
    of_all = traced(squares)
    seconds = best(lambda: ops.convert_to_numpy(of_all(gradients)))
    rows = [
        ["norms of all gradients", f"{1e3 * seconds:.1f}", f"{moved / seconds:.1f}"]
    ]
    copies = [np.empty_like(array) for array in arrays]
    for threads in (1, os.cpu_count()):
        with ThreadPoolExecutor(threads) as pool:
            seconds = best(lambda pool=pool: list(pool.map(np.copyto, copies, arrays)))
        rate = f"{2 * moved / seconds:.1f}"
        rows.append([f"a copy, threads: {threads}", f"{1e3 * seconds:.1f}", rate])
    return rows


# -- The page --------------------------------------------------------------------------


def draw(by_parameters, by_variables, path):
    """Draws what is added to a step, on log scales."""
    plt = timing.pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sides = ((left, by_parameters, "parameters"), (right, by_variables, "variables"))
    for axes, found, label in sides:
        x = list(found)
        axes.plot(x, [f[0] for f in found.values()], "o-", color="grey", label="stock")
        more = [max(f[2], 1e-3) for f in found.values()]
        axes.plot(x, more, "o-", color="tab:red", label="GradWatch adds")
        noise = [max(abs(f[1]), 1e-3) for f in found.values()]
        axes.plot(x, noise, ":", color="grey", label="control is off by")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="ms per step")
    left.legend()
    figure.savefig(path, dpi=110)


def rows(found):
    return [
        [f"{size:,.0f}", f"{stock:.3f}", f"{off:+.3f}", f"{more:+.3f}", events]
        for size, (stock, off, more, events) in found.items()
    ]


def main(given=None):
    """Measures both, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--parameters", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    add("--variables", type=int, nargs="+", default=[10, 100, 1000])
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=200, help="a multiple of 200: see timing.Fit")
    add("--out", type=pathlib.Path, help="folder for scaling.md and scaling.png")
    arguments = parser.parse_args(given)
    largest = max(arguments.parameters)
    rates = speeds(largest)
    by_variables = {v: added(v, SMALL, arguments) for v in arguments.variables}
    by_parameters = {p: added(FEW, p, arguments) for p in arguments.parameters}
    picture = []
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        name = f"{timing.file_stem('scaling')}.png"
        draw(by_parameters, by_variables, arguments.out / name)
        picture = [f"![What GradWatch adds to a step]({name})", ""]
    head = [
        "ms per step, stock",
        "control − stock",
        "`GradWatch(log_dir)` − stock",
        "events",
    ]
    page = [
        "# Time by model size",
        "",
        "The time that `GradWatch(log_dir)` adds to the step of an almost empty model,",
        "in milliseconds: medians of differences to stock Keras, measured in pairs.",
        "",
        *timing.measured("scaling.py", given),
        *picture,
        f"With {FEW} variables:",
        "",
        *timing.table(["parameters", *head], rows(by_parameters)),
        "",
        f"With {SMALL:,.0f} parameters:",
        "",
        *timing.table(["variables", *head], rows(by_variables)),
        "",
        f"One pass over the gradients of {largest:,.0f} parameters alone, the best of",
        f"{REPEATS}. A copy reads and writes, and both are counted.",
        "",
        *timing.table(["what", "ms", "GB/s"], rates),
    ]
    timing.write(arguments.out, timing.file_stem("scaling"), page)


if __name__ == "__main__":
    main()
