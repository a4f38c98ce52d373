"""What watching costs before the first step: the first `fit` of a fresh model.

That is one step of one batch: making the variables, tracing and optimizing the step,
running it. Variants take turns in one process, with a fresh model each time. What a
process pays for its very first model is not counted.

    python benchmarks/tracing.py [--models mlp ...] [--rounds 5] [--out docs/benchmarks]

It takes about ten minutes on two cores.
"""

import argparse
import pathlib
import sys
import tempfile
import time

import overhead
import timing
from models import MODELS

NAMES = ("stock", "control", "global_clipnorm", "gradwatch")


def first_fit(workload, name, arguments):
    """A function that times the first `fit` of a fresh model, in seconds."""

    def measure():
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            new = overhead.prepare(workload, name, folder, arguments, 1)
            begin = time.perf_counter()
            new()
            seconds = time.perf_counter() - begin
            del new
        overhead.forget()
        return seconds

    return measure


def rows_of(workload, arguments):
    """The rows of the table of one model."""
    fits = {name: first_fit(workload, name, arguments) for name in NAMES}
    for fit in fits.values():
        fit()
    found = timing.take_turns(fits, arguments.rounds)
    rows = []
    for name in NAMES:
        seconds = sorted(found[name].tolist())[arguments.rounds // 2]
        ratio = timing.ratio(found[name], found["stock"])[0]
        title = overhead.VARIANTS[name].title
        rows.append([workload.title, title, f"{seconds:.2f}", f"{ratio:.2f}"])
    return rows


def main(given=None):
    """Measures the models, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--rounds", type=int, default=5)
    add("--out", type=pathlib.Path, help="folder for tracing.md")
    arguments = parser.parse_args(given)
    arguments.jit, arguments.steps_per_execution = False, 1
    rows = [row for n in arguments.models for row in rows_of(MODELS[n], arguments)]
    page = [
        "# What watching costs before the first step",
        "",
        "The first `fit` of a fresh model, of one batch: tracing, optimizing and",
        "running the step. Medians; the ratios were measured in pairs.",
        "",
        *timing.measured("tracing.py", given),
        *timing.table(["model", "variant", "first `fit`, s", "against stock"], rows),
    ]
    timing.write(arguments.out, "tracing", page)


if __name__ == "__main__":
    main()
