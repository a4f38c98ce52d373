"""Which runs that blow up are saved, and by what.

Every scenario is trained with stock Keras, each of its clips, four published clipping
rules, and `GradWatch()` with its defaults. The reference is the best of a grid: six
rates, each with no clip and with each of Keras's, chosen on seed 0 of clean data, its
score being the mean over the reported seeds. Healthy runs are compared with stock
Keras: no event, the same weights.

    python benchmarks/rescue.py [--seeds 11 12 13] [--out docs/benchmarks]

It takes about half an hour on two cores; what was measured is kept in `rescue.json`,
beside the table, and a run that was cut off goes on from there.
"""

import argparse
import dataclasses
import json
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf
from scenarios import HEALTHY, LISTED

from keras_gradwatch.callbacks import GradientClipping, GradWatch
from keras_gradwatch.policies import AdaGC, AdaptiveGradientClip, AutoClip, ZClip

CLIPS = {
    "clipnorm 1": ("clipnorm", 1.0),
    "global_clipnorm 1": ("global_clipnorm", 1.0),
    "clipvalue .5": ("clipvalue", 0.5),
}
POLICIES = {
    "AutoClip": AutoClip,
    "ZClip": lambda: ZClip(robust=False),
    "AGC": lambda: AdaptiveGradientClip(0.01),
    "AdaGC": lambda: AdaGC(robust=False),
}
METHODS = ["stock", *CLIPS, *POLICIES, "GradWatch"]
RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.001)


class Results:
    """Scores by name, in a file that is written after each."""

    def __init__(self, path):
        self._path = path
        self._found = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key, make):
        """What is known under `key`, or what `make()` returns."""
        if key not in self._found:
            self._found[key] = make()
            self._path.write_text(json.dumps(self._found, indent=0))
            print(f"{key}: {self._found[key]}", flush=True)
        return self._found[key]


def measure(results, name, scenario, method, seed):
    """The score of one run."""

    def train():
        clip, callbacks = CLIPS.get(method), []
        if method == "GradWatch":
            callbacks = [GradWatch(verbose=0)]
        elif method in POLICIES:
            callbacks = [GradientClipping(POLICIES[method]())]
        score, model = scenario.run(seed, callbacks, clip)
        if method == "GradWatch":
            weights = [keras.ops.convert_to_numpy(w) for w in model.weights]
            assert all(np.isfinite(w).all() for w in weights), (name, seed)
        return score

    return results.get(f"{name}/{method}/{seed}", train)


def reference(results, name, scenario, seeds):
    """The mean score of the best rate and clip, and which these are."""
    clean = dataclasses.replace(scenario, poison=None)
    grid = [(rate, clip) for rate in RATES for clip in (None, *CLIPS)]

    def score(choice, seed):
        rate, clip = choice
        return results.get(
            f"{name}/grid {rate} {clip}/{seed}",
            lambda: clean.run(seed, (), CLIPS.get(clip), rate)[0],
        )

    best = max(grid, key=lambda choice: score(choice, 0))
    return float(np.mean([score(best, seed) for seed in seeds])), best


def left_alone(results, name, scenario, seed):
    """`(events, largest difference of a weight from stock Keras)` of a healthy run."""

    def compare():
        watching = GradWatch(verbose=0)
        _, watched = scenario.run(seed, [watching])
        mine = watched.get_weights()
        _, stock = scenario.run(seed)
        pairs = zip(mine, stock.get_weights(), strict=True)
        return [len(watching.events), max(float(abs(a - b).max()) for a, b in pairs)]

    return results.get(f"{name}/left alone/{seed}", compare)


def table(results, seeds, scenarios):
    """Rows of `(name, scores by method, reference)`."""
    rows = []
    for name, scenario in scenarios.items():
        scores = {
            method: float(
                np.mean([measure(results, name, scenario, method, s) for s in seeds])
            )
            for method in METHODS
        }
        rows.append((name, scores, *reference(results, name, scenario, seeds)))
    return rows


def page(rows, healthy, seeds, command):
    """The page of the documentation, Markdown."""
    lines = [
        "# Rescue benchmark",
        "",
        "Scores of each method on small runs that blow up, mean over "
        f"{len(seeds)} seeds.",
        "Classification: (accuracy − chance) / (1 − chance); regression: R², no less "
        "than 0.",
        f"Measured on {os.cpu_count()} cores, Keras {keras.__version__}, by",
        "",
        f"    {command}",
        "",
        f"| scenario | {' | '.join(METHODS)} | reference | GradWatch / reference |",
        "|---" * (len(METHODS) + 3) + "|",
    ]
    reached = better = 0
    for name, scores, best, _ in rows:
        share = scores["GradWatch"] / best if best > 0 else 1.0
        clips = max(scores[c] for c in METHODS[1:-1])
        reached += share >= 0.9
        better += scores["GradWatch"] >= clips
        cells = [
            f"**{v:.2f}**" if v == max(scores.values()) else f"{v:.2f}"
            for v in scores.values()
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {best:.2f} | {share:.2f} |")
    lines += [
        "",
        f"`GradWatch()` reaches 0.9 of the reference in **{reached} of {len(rows)}**, "
        f"and at least the score of the best of the seven clips in **{better} of "
        f"{len(rows)}**.",
        "",
        *_short(rows),
        "![Scores of all methods](rescue.png)",
        "",
        "The next table describes the scenarios. Every method except the reference "
        "uses the learning rate given there. The reference is the best of six learning "
        "rates (× 1 to × 0.001 of that rate), with no clip or one of Keras's three, "
        "chosen on clean data with seed 0.",
        "",
        "| scenario | description | best learning rate | best clip |",
        "|---|---|---|---|",
    ]
    for name, _, _, (rate, clip) in rows:
        title = LISTED[name].title
        lines.append(f"| {name} | {title} | × {rate:g} | {clip or 'none'} |")
    lines += [
        "",
        "AutoClip, ZClip, AGC (`AdaptiveGradientClip(0.01)`) and AdaGC are the "
        "published rules; non-finite steps are skipped, as in `GradientClipping`.",
        "",
        "## Healthy runs",
        "",
        "An event with a difference of 0 was only reported; it changed nothing.",
        "",
        "| run | events | largest difference of a weight from stock Keras |",
        "|---|---|---|",
    ]
    for name, found in healthy.items():
        events = sum(e for e, _ in found)
        apart = max(d for _, d in found)
        lines.append(f"| {HEALTHY[name].title} | {events} | {apart:g} |")
    return "\n".join(lines) + "\n"


def _short(rows):
    """Lines on the scenarios in which a clip reaches more."""
    lines = []
    for name, scores, _, _ in rows:
        best = max(METHODS[1:-1], key=scores.get)
        if scores[best] > scores["GradWatch"]:
            higher, own = f"{scores[best]:.2f}", f"{scores['GradWatch']:.2f}"
            reached = f"{higher} against {own}"
            if higher == own:
                reached = f"the same score to two decimals, {own}"
            lines.append(f"- {name}: {best} reaches {reached}.")
    if not lines:
        return []
    why = (
        "A fixed or adaptive clip may also change steps of healthy runs; `GradWatch` "
        "changed none of the runs below. You can combine both: "
        "`GradWatch(policy=...)`."
    )
    return [*lines, "", why, ""]


def plot(rows, path):
    """Scores by scenario and method, as bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(11, 4.5), layout="constrained")
    width = 0.8 / len(METHODS)
    colours = [*plt.get_cmap("Greys")(np.linspace(0.25, 0.75, len(METHODS) - 1))]
    for i, method in enumerate(METHODS):
        places = np.arange(len(rows)) + (i - len(METHODS) / 2) * width
        colour = "tab:red" if method == "GradWatch" else colours[i]
        heights = [max(0, r[1][method]) for r in rows]
        axes.bar(places, heights, width, color=colour, label=method)
    for x, row in enumerate(rows):
        label = "reference" if x == 0 else None
        axes.hlines(row[2], x - 0.45, x + 0.4, "black", linewidth=1.5, label=label)
    axes.set_xticks(range(len(rows)), [r[0] for r in rows], rotation=25, ha="right")
    axes.set_ylabel("score")
    axes.set_ylim(0, 1)
    axes.legend(
        ncols=5, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, 1.2)
    )
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13])
    parser.add_argument("--out", type=pathlib.Path, help="write the page there")
    parser.add_argument("--only", nargs="+", help="names of scenarios")
    arguments = parser.parse_args()
    # What is idle is equal bit for bit where TensorFlow does not fold anew what has one
    # more reader.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    out = arguments.out or pathlib.Path()
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "rescue.json")
    chosen = arguments.only or [*LISTED, *HEALTHY]
    listed = {name: s for name, s in LISTED.items() if name in chosen}
    rows = table(results, arguments.seeds, listed)
    healthy = {
        name: [left_alone(results, name, scenario, s) for s in arguments.seeds]
        for name, scenario in HEALTHY.items()
        if name in chosen
    }
    seeds = " ".join(map(str, arguments.seeds))
    command = f"python benchmarks/rescue.py --seeds {seeds} --out docs/benchmarks"
    text = page(rows, healthy, arguments.seeds, command)
    print(text)
    if arguments.out:
        (out / "rescue.md").write_text(text)
        plot(rows, out / "rescue.png")


if __name__ == "__main__":
    main()
