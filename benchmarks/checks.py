"""Time of what a report needs beside the recorded steps: once per run, on the host.

The model and its first batch are described before the first step. The forward pass of a
bad batch is traced when one is found; see `keras_gradwatch.trace_forward`.

    [KERAS_BACKEND=jax] python benchmarks/checks.py [--rounds 9] [--out docs/benchmarks]
"""

import argparse
import pathlib
import statistics
import sys
import time

import models
import timing

from keras_gradwatch import trace_forward
from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.records.first_batch import describe_batch
from keras_gradwatch.reports.diagnosis.data import certain
from keras_gradwatch.reports.diagnosis.model import describe

CHOSEN = ("mlp", "resnet", "transformer", "mobilenet")


def milliseconds(function, rounds):
    """The median time of a call."""
    times = []
    for _ in range(rounds + 1):
        begin = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times[1:])


def measure(name, rounds):
    """The cells of one model's row."""
    workload = models.MODELS[name]
    model, data = workload.build(), workload.samples(2)
    batch = tuple(part[: workload.batch_size] for part in data)
    watch = GradWatch(verbose=0)
    model.fit(*data, workload.batch_size, verbose=0, callbacks=[watch])
    parts = (
        lambda: describe(model),
        lambda: describe_batch(batch),
        lambda: certain(watch.summary),
        lambda: trace_forward(model, *batch),
    )
    times = [milliseconds(part, rounds) for part in parts]
    sizes = [len(model.trainable_variables), f"{model.count_params():,}"]
    return [workload.title, *sizes, *(f"{t:.1f}" for t in times)]


def main(given=None):
    """Measures, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--models", nargs="+", choices=CHOSEN, default=list(CHOSEN))
    parser.add_argument("--out", type=pathlib.Path, help="folder for checks.md")
    arguments = parser.parse_args(given)
    head = ["model", "variables", "parameters", "model described", "batch described"]
    head += ["settings checked", "forward pass traced"]
    lines = [
        "# Time of the checks",
        "",
        "Time of each check in milliseconds; each is made once per run. Describing the",
        "model and the batch and checking the settings happen before the first step. "
        "The",
        "forward pass is traced only for a batch whose step was not finite.",
        "",
        *timing.table(head, [measure(m, arguments.rounds) for m in arguments.models]),
        "",
        *timing.measured("checks.py", given),
    ]
    timing.write(arguments.out, timing.file_stem("checks"), lines)


if __name__ == "__main__":
    main()
