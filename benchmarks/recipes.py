"""Recipes that train well: `GradWatch()` must not change how they end.

Each recipe of `recipe_list` is trained to its end with stock Keras and with
`GradWatch()`, with equal seeds. The page has the mean scores on held-out data, the
standard error of stock's, and what `GradWatch()` did.

    [KERAS_BACKEND=jax] python benchmarks/recipes.py [--seeds 41 42 43]
        [--only NAME ...] [--out docs/benchmarks]

It takes about 40 minutes on one core. What was measured is kept in `recipes.json`
beside the page; a run that was cut off continues from there.
"""

import argparse
import json
import pathlib
import sys

import keras
import numpy as np
import timing
from recipe_list import RECIPES

from keras_gradwatch.callbacks import GradWatch


def run(name, seed, watched):
    """What one run came to, a dict of numbers and names."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    watching = GradWatch(verbose=0)
    score, model = RECIPES[name][1]([watching] if watched else [])
    found = {"score": score, "rate": float(model.optimizer.learning_rate)}
    if watched:
        found |= {
            "events": [e.message for e in watching.events][:5],
            "count": len(watching.events),
            "steps": watching.summary.steps,
            "skipped": watching.summary.steps - watching.summary.outcomes["applied"],
            "held": watching.summary.outcomes["held"],
            "findings": [f.kind for f in watching.report().symptoms],
        }
    return found


def measure(names, seeds, path):
    """By name, for each seed a pair of what `run` gives: stock, watched."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        for seed in seeds:
            key = f"{name}/{seed}"
            if key not in kept:
                kept[key] = [run(name, seed, False), run(name, seed, True)]
                path.write_text(json.dumps(kept, indent=0))
                stock, watched = kept[key]
                print(key, round(stock["score"], 4), watched, flush=True)
    return {name: [kept[f"{name}/{seed}"] for seed in seeds] for name in names}


def page(found, seeds, given):
    """The lines of the page."""
    head = ["recipe", "stock", "± its standard error", "GradWatch", "events"]
    head += ["steps", "skipped", "held", "final learning rate, relative to stock"]
    head += ["the report names"]
    cells, quiet, fine, named = [], 0, 0, 0
    for name, pairs in found.items():
        stock, watched = zip(*pairs, strict=True)
        scores = np.array([s["score"] for s in stock])
        own = np.array([w["score"] for w in watched])
        error = scores.std(ddof=1) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
        events = sum(w["count"] for w in watched)
        quiet += events == 0
        fine += own.mean() >= scores.mean() - error
        findings = sorted({kind for w in watched for kind in w["findings"]})
        named += bool(findings)
        # A schedule may end at 0.
        rates = [w["rate"] / s["rate"] if s["rate"] else 1.0 for s, w in pairs]
        cells.append(
            [RECIPES[name][0], f"{scores.mean():.3f}", f"{error:.3f}"]
            + [f"{own.mean():.3f}", str(events), str(sum(w["steps"] for w in watched))]
            + [str(sum(w[key] for w in watched)) for key in ("skipped", "held")]
            + [f"{min(rates):.3g}", ", ".join(findings)]
        )
    backend = timing.TITLES[timing.BACKEND]
    return [
        "# Recipes that train well",
        "",
        f"Means over {len(seeds)} seeds, on {backend}. A score is the accuracy on",
        "held-out data, R² for regression and reconstruction, and 1 minus the relative",
        "error of the values for Q-learning. These runs should not blow up, so",
        "`GradWatch()` should have nothing to do.",
        "",
        *timing.table(head, cells),
        "",
        f"- **{quiet} of {len(found)}** recipes had no event.",
        f"- The score is at most one standard error below stock Keras in **{fine} of "
        f"{len(found)}**.",
        f"- The report has a finding in **{named} of {len(found)}**.",
        "",
        "Measured by",
        "",
        f"    {timing.command('recipes.py', given)}",
    ]


def main(given=None):
    """Measures, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", nargs="+", type=int, default=[41, 42, 43])
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--out", type=pathlib.Path, help="folder for recipes.md")
    arguments = parser.parse_args(given)
    if timing.BACKEND == "tensorflow":
        import tensorflow as tf

        # Idle runs are equal bit for bit where it does not rewrite arithmetic.
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    folder = arguments.out or pathlib.Path()
    folder.mkdir(parents=True, exist_ok=True)
    found = measure(arguments.only, arguments.seeds, folder / "recipes.json")
    timing.write(arguments.out, "recipes", page(found, arguments.seeds, given))


if __name__ == "__main__":
    main()
