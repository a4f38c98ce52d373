"""Time of a step: the steps of `fit` with `GradWatch` against stock Keras.

Variants of a model take turns in one process, in shuffled order; each round gives one
ratio against the stock model of the same round, and the pages show the medians. A
second stock model is the control: where it is off by more than 2%, the machine was too
noisy for a verdict. What is paid at each step and once per `fit` are different columns;
what the first `fit` pays, in which the step is traced, is in tracing.py.

    [KERAS_BACKEND=jax] python benchmarks/overhead.py [--models mlp ...]
        [--variants gradwatch ...] [--rounds 9] [--builds 1] [--steps 200]
        [--out docs/benchmarks]

`--builds` builds the models anew after some of the rounds: TensorFlow runs the loop of
an LSTM at one of two speeds, a tenth apart, which is settled in a model's first steps.

It takes about an hour on two cores. With `--out`, what was measured is kept in
`overhead.json`, beside the page: a model that is measured again takes the place of what
was there, and the others stay, as do those of other backends. `--models` without a name
measures nothing, and writes the page from what was kept.
"""

import argparse
import contextlib
import gc
import math
import pathlib
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import keras
import timing
from models import MODELS

from keras_gradwatch.callbacks import GradientClipping, GradientHistory, GradWatch

ON_TENSORFLOW = timing.BACKEND == "tensorflow"
if ON_TENSORFLOW:
    import rivals

NOISE = 0.02
TICKS = (1, 1.05, 1.1, 1.2, 1.4, 1.7, 2, 2.5)


@dataclass(frozen=True)
class Variant:
    """One way to train a model.

    Attributes:
        title: For people.
        clip: Keywords of the optimizer.
        base: Function of a directory that returns the class of the model.
        callbacks: Function of a directory that returns the callbacks.
        around: Context manager in which it trains.
        xla: Whether it runs with `jit_compile=True`.
        anywhere: Whether it runs on other backends than TensorFlow.
    """

    title: str
    clip: dict | None = None
    base: Callable = lambda log_dir: keras.Model
    callbacks: Callable = lambda log_dir: []
    around: Callable = contextlib.nullcontext
    xla: bool = True
    anywhere: bool = True


def watching(**options):
    return lambda log_dir: [GradWatch(log_dir, verbose=0, **options)]


VARIANTS = {
    "stock": Variant("stock"),
    "control": Variant("control: stock again"),
    "global_clipnorm": Variant("`global_clipnorm=1`", {"global_clipnorm": 1.0}),
    "gradwatch": Variant("`GradWatch(log_dir)`", callbacks=watching()),
    "dense": Variant(
        "`GradWatch(log_dir)`, trust bound at every step",
        callbacks=watching(dense_steps=None),
    ),
    "history": Variant(
        "`GradientHistory()`", callbacks=lambda log_dir: [GradientHistory()]
    ),
    "clipping": Variant(
        "`GradientClipping(global_clipnorm=1)`",
        callbacks=lambda log_dir: [GradientClipping(global_clipnorm=1.0)],
    ),
    "hand_written": Variant(
        "hand-written `train_step`: `tf.summary.scalar` of every norm",
        base=lambda log_dir: rivals.hand_written(log_dir),
        xla=False,
        anywhere=False,
    ),
    "auto_clip": Variant(
        "hand-written `train_step`: AutoClip",
        base=lambda log_dir: rivals.auto_clip(),
        xla=False,
        anywhere=False,
    ),
    "least_guard": Variant(
        "hand-written `train_step`: skips non-finite updates",
        base=lambda log_dir: rivals.least_guard(),
        anywhere=False,
    ),
    "check_numerics": Variant(
        "`tf.debugging.enable_check_numerics`",
        around=lambda: rivals.check_numerics(),
        xla=False,
        anywhere=False,
    ),
}
# 500 layers are measured on TensorFlow only, unless they are asked for.
MEASURED = ["resnet", "transformer", "lstm", "mlp"] + ["deep"] * ON_TENSORFLOW


def prepare(workload, name, folder, steps, jit=False, steps_per_execution=1):
    """The `Fit` of one variant, with a model of its own."""
    variant, log_dir = VARIANTS[name], folder / name
    model = workload.build(
        variant.base(log_dir),
        # Said outright: on a GPU Keras would choose XLA. JAX is nothing without it.
        jit or (False if ON_TENSORFLOW else "auto"),
        steps_per_execution,
        **(variant.clip or {}),
    )
    return timing.Fit(
        model,
        workload.samples,
        workload.batch_size,
        steps,
        variant.callbacks(log_dir),
        variant.around,
    )


def measure_steps(workload, names, folder, arguments):
    """What each variant takes in each round.

    Returns:
        Dict with `variables` and `parameters` of the model, its `steps`: lists
        [rounds, 2] of ms a step and of the rest of the fit, by variant; and `events`,
        how many steps `GradWatch` found anything wrong with.
    """
    times, events = {name: [] for name in names}, 0
    options = arguments.steps, arguments.jit, arguments.steps_per_execution
    for build in range(arguments.builds):
        place = folder / str(build)
        fits = {name: prepare(workload, name, place, *options) for name in names}
        # Not one by one: TensorFlow forgets its kernels when the next seed is set.
        for fit in fits.values():
            fit.warm_up()
        found = timing.take_turns(fits, arguments.rounds // arguments.builds)
        for name, values in found.items():
            times[name] += values.tolist()
        watched = [c for fit in fits.values() for c in fit.callbacks]
        events += sum(len(c.events) for c in watched if isinstance(c, GradWatch))
        sizes = [math.prod(w.shape) for w in fits["stock"].model.trainable_variables]
        del fits, fit, watched
        forget()
    return {
        "variables": len(sizes),
        "parameters": sum(sizes),
        "steps": times,
        "events": events,
    }


def forget():
    keras.backend.clear_session()
    gc.collect()


# -- The page --------------------------------------------------------------------------


def ratios(result):
    """`timing.ratio` of a step of each variant, by name."""
    times = {name: [step for step, _ in rows] for name, rows in result["steps"].items()}
    return {name: timing.ratio(t, times["stock"]) for name, t in times.items()}


def verdict(result):
    """What the numbers of one model say, in a line."""
    found, rows = ratios(result), result["steps"]
    off = abs(found["control"][0] - 1) if "control" in found else None
    if off is None:
        return "No control was measured, so there is no verdict."
    if off > NOISE:
        return f"The control is off by {off:.1%}: too noisy for a verdict."
    if "gradwatch" not in found:
        return f"The control is off by {off:.1%}."
    more = found["gradwatch"][0] - 1
    words = f"`GradWatch(log_dir)` takes {abs(more):.1%} "
    words += f"{'more' if more >= 0 else 'less'} time per step"
    words += f" (the control is off by {off:.1%})"
    if "global_clipnorm" in found:
        ours, keras_own = (
            [s for s, _ in rows[n]] for n in ("gradwatch", "global_clipnorm")
        )
        against = timing.ratio(ours, keras_own)[0]
        words += f"; its step takes {against:.3f} times that of `global_clipnorm=1`"
    return words + "."


def section(result):
    """Lines about one model."""
    rows, found = result["steps"], ratios(result)
    stock = [step for step, _ in rows["stock"]]
    stock_rest = [rest for _, rest in rows["stock"]]
    lines = []
    for name in (n for n in VARIANTS if n in rows):
        steps, rests = zip(*rows[name], strict=True)
        median, low, high = found[name]
        cells = [VARIANTS[name].title, f"{sorted(steps)[len(steps) // 2]:.3f}"]
        cells += [f"{median:.3f}", f"{low:.3f} to {high:.3f}"]
        cells += [f"{timing.more(steps, stock):+.3f}"]
        cells += [f"{timing.more(rests, stock_rest):+.0f}"]
        lines.append(cells)
    head = ["variant", "ms per step", "relative to stock", "middle half of the rounds"]
    head += ["extra ms per step", "extra ms per `fit`"]
    size = f"{result['variables']:,} variables, {result['parameters']:,} parameters."
    acted = f" `GradWatch` noted {result['events']} events, which also cost time."
    return [
        f"### {result['title']}",
        "",
        size + (acted if result["events"] else "") + " " + verdict(result),
        "",
        *timing.table(head, lines),
        "",
        f"Measured on {result['machine']}, by",
        "",
        f"    {result['command']}",
        "",
    ]


def overview(results):
    """Lines of the table of all models."""
    found = {title: ratios(result) for title, result in results.items()}
    rows = []
    for name, variant in VARIANTS.items():
        cells = [f"{f[name][0]:.3f}" if name in f else "" for f in found.values()]
        if name != "stock" and any(cells):
            rows.append([variant.title, *cells])
    return timing.table(["step time relative to stock", *found], rows)


def page(results, folder):
    """The lines of the page.

    Args:
        results: As `timing.renew` returns them.
        folder: Where the plots are, or None.
    """
    lines = [
        "# Time of a step",
        "",
        "The time of a training step relative to stock Keras, in `fit` and with its",
        "data: medians of ratios that were measured in pairs. The *control* is stock",
        "Keras, measured a second time as if it were another variant: its deviation",
        "from 1.00 shows the noise of the measurement. Every variable is",
        "watched at every step. A step is timed from the beginning of a batch to that",
        "of a later one. Costs that occur once per `fit` (files, the first snapshot)",
        "have their own column, and the first `fit`, in which the step is traced, has",
        "[its own page](tracing.md).",
        "",
    ]
    for backend, title, models in timing.by_backend(results):
        lines += [f"## {title}", "", *overview(models), ""]
        picture = f"{timing.file_stem('overhead', backend)}.png"
        if folder and (folder / picture).exists():
            lines += [f"![{title}: step time relative to stock Keras]({picture})", ""]
        lines += [line for result in models.values() for line in section(result)]
    return lines


def draw(results, path):
    """Draws the ratios of all models, with the middle half of the rounds."""
    plt = timing.pyplot()
    size = (10, 1 + 1.9 * len(results))
    figure, grid = plt.subplots(
        len(results), sharex=True, figsize=size, layout="constrained", squeeze=False
    )
    ours = ("gradwatch", "dense", "history", "clipping")
    for axes, result in zip(grid[:, 0], results.values(), strict=True):
        found = ratios(result)
        names = [name for name in VARIANTS if name in found and name != "stock"]
        for y, name in enumerate(reversed(names)):
            median, low, high = found[name]
            colour = "tab:red" if name in ours else "dimgrey"
            axes.plot([low, high], [y, y], color=colour)
            axes.plot(median, y, "o", color=colour)
        axes.set_yticks(range(len(names)), reversed([clean(n) for n in names]))
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(result["title"], fontsize="medium")
    grid[-1, 0].set_xscale("log")
    grid[-1, 0].set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    grid[-1, 0].set_xticks([], minor=True)
    grid[-1, 0].set_xlabel("step time relative to stock Keras")
    figure.savefig(path, dpi=110)


def clean(name):
    return VARIANTS[name].title.replace("`", "")


# -- The command -----------------------------------------------------------------------


def parse(given):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--models", nargs="*", choices=MODELS, default=MEASURED)
    add("--variants", nargs="+", choices=usable(), help="beside stock and control")
    add("--rounds", type=int, default=9)
    add("--steps", type=int, default=200, help="a multiple of 200: see timing.Fit")
    add("--builds", type=int, default=1, help="the models are built anew so often")
    add("--steps-per-execution", type=int, default=1)
    add("--jit", action="store_true", help="compile the step with XLA")
    add("--out", type=pathlib.Path, help="folder for overhead.md, .json and .png")
    arguments = parser.parse_args(given)
    if arguments.steps % arguments.steps_per_execution:
        parser.error("--steps must be a multiple of --steps-per-execution")
    if arguments.rounds % arguments.builds:
        parser.error("--rounds must be a multiple of --builds")
    return arguments


def usable(jit=False):
    """The names of the variants that run on this backend."""
    return [
        name
        for name, variant in VARIANTS.items()
        if (variant.anywhere or ON_TENSORFLOW) and (variant.xla or not jit)
    ]


def measure(name, arguments, given):
    """All that is measured of one model, as it is kept."""
    workload = MODELS[name]
    title = workload.title
    if arguments.steps_per_execution > 1:
        title += f", steps_per_execution {arguments.steps_per_execution}"
    result = {
        "title": title + (", XLA" if arguments.jit else ""),
        "machine": timing.machine(),
        "command": timing.command("overhead.py", given),
    }
    variants = usable(arguments.jit)
    wanted = ["stock", "control", *(arguments.variants or variants)]
    names = [variant for variant in variants if variant in wanted]
    with tempfile.TemporaryDirectory() as folder:
        result |= measure_steps(workload, names, pathlib.Path(folder), arguments)
    print(*section(result), sep="\n", flush=True)
    return result


def main(given=None):
    """Measures the models, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    arguments = parse(given)
    folder = arguments.out
    measured = (measure(name, arguments, given) for name in arguments.models)
    results = timing.renew(folder, "overhead", measured)
    if folder and timing.BACKEND in results:
        picture = folder / f"{timing.file_stem('overhead')}.png"
        draw(results[timing.BACKEND], picture)
    timing.write(folder, "overhead", page(results, folder))


if __name__ == "__main__":
    main()
