"""Time to the first step: the first `fit` of a fresh model.

That is a `fit` of two batches: making what is not there yet, tracing and compiling the
step, and running it, twice, so that a step that is compiled anew for the second batch
shows. Imports and building the model are not counted.

Each `fit` is measured in a process of its own. Variants take turns; each round gives
one ratio against the stock model of the same round, and the page shows the medians. A
second stock model is the control.

    [KERAS_BACKEND=jax] python benchmarks/tracing.py [--models mlp ...]
        [--variants gradwatch ...] [--rounds 5] [--out docs/benchmarks]

It takes about 40 minutes on each backend, on two cores that do nothing else: beside
another process, a first `fit` on PyTorch may take ten times as long.

With `--out`, what was measured is kept in `tracing.json`, beside the page: a model that
is measured again takes the place of what was there, and the others stay, as do those of
other backends. `--models` without a name measures nothing, and writes the page from
what was kept.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np
import overhead
import timing
from models import MODELS

OURS = ("gradwatch", "history", "clipping")
NAMES = ("stock", "control", "global_clipnorm", *OURS)
# What is to be reached: this many times the seconds of stock Keras, and seconds more.
LIMITS = {"tensorflow": (1.2, 0.5), "jax": (1.3, 1.0), "torch": (1.2, 0.0)}


def first_fit(model, variant):
    """Seconds of the first `fit` of a fresh model; to be called once in a process."""
    if timing.BACKEND == "jax":
        import jax

        jax.config.update("jax_enable_compilation_cache", False)
    with tempfile.TemporaryDirectory() as folder:
        fit = overhead.prepare(MODELS[model], variant, pathlib.Path(folder), steps=1)
        begin = time.perf_counter()
        fit()
        return time.perf_counter() - begin


def measure(model, arguments, given):
    """All that is measured of one model, as it is kept."""
    # In a process of its own: one that asks for a GPU may take all of its memory. It
    # comes first, so that the files of all imports are in the cache.
    machine = timing.in_its_own_process(timing.machine)
    wanted = ["stock", "control", *arguments.variants]
    seconds = {name: [] for name in NAMES if name in wanted}
    for _ in range(arguments.rounds):
        for name, found in seconds.items():
            found.append(timing.in_its_own_process(first_fit, model, name))
            print(f"{model}, {name}: {found[-1]:.2f} s", flush=True)
    return {
        "title": MODELS[model].title,
        "machine": machine,
        "command": timing.command("tracing.py", given),
        "seconds": seconds,
    }


# -- The page --------------------------------------------------------------------------


def limit(backend, stock):
    """The seconds that a watched `fit` may take, for those of stock Keras."""
    times, more = LIMITS[backend]
    return times * np.asarray(stock) + more


def in_words(backend):
    times, more = LIMITS[backend]
    return f"{times:g} × stock" + (f" + {more:g} s" if more else "")


def rows_of(backend, result):
    """The rows of the table of one model."""
    found = result["seconds"]
    limits = limit(backend, found["stock"])
    rows = []
    for name in (n for n in NAMES if n in found):
        ratios = [
            f"{timing.ratio(found[name], found[base])[0]:.2f}" if base in found else ""
            for base in ("stock", "global_clipnorm")
        ]
        reached = f"{timing.ratio(found[name], limits)[0]:.2f}"
        cells = [result["title"], overhead.VARIANTS[name].title]
        cells += [f"{statistics.median(found[name]):.2f}", *ratios]
        cells += [f"{np.median(limits):.2f}", reached] if name in OURS else ["", ""]
        rows.append(cells)
    return rows


def sources(models):
    """Lines that say on what and by which command each model was measured."""
    titles = {}
    for result in models.values():
        source = result["machine"], result["command"]
        titles.setdefault(source, []).append(result["title"])
    lines = []
    for (machine, command), measured in titles.items():
        of = f" ({'; '.join(measured)})" if len(titles) > 1 else ""
        lines += [f"Measured on {machine}{of}, by", "", f"    {command}", ""]
    return lines


def page(results):
    """The lines of the page.

    Args:
        results: As `timing.renew` returns them.
    """
    lines = [
        "# Time to the first step",
        "",
        "The first `fit` of a new model with two batches, each in its own process:",
        "tracing, compiling and running the step. Imports and model construction are",
        "not counted. The values are medians, and the ratios were measured in pairs.",
        "",
    ]
    head = ["model", "variant", "first `fit`, s", "relative to stock"]
    head += ["relative to `global_clipnorm`", "limit, s", "relative to the limit"]
    for backend, title, models in timing.by_backend(results):
        rows = [row for result in models.values() for row in rows_of(backend, result)]
        lines += [
            f"## {title}",
            "",
            f'The project\'s target, the column "limit": {in_words(backend)}.',
            "",
        ]
        lines += [*timing.table(head, rows), "", *sources(models)]
    return lines


def main(given=None):
    """Measures the models, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    usual = ["mlp", "resnet", "transformer", "lstm", "mobilenet"]
    add("--models", nargs="*", choices=MODELS, default=usual)
    add("--variants", nargs="+", choices=NAMES, default=NAMES)
    add("--rounds", type=int, default=5)
    add("--out", type=pathlib.Path, help="folder for tracing.md and tracing.json")
    arguments = parser.parse_args(given)
    measured = (measure(model, arguments, given) for model in arguments.models)
    results = timing.renew(arguments.out, "tracing", measured)
    timing.write(arguments.out, "tracing", page(results))


if __name__ == "__main__":
    main()
