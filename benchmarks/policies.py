"""What the policies do: test accuracy of small runs, with each of them and without.

Every run is 225 steps of plain SGD on scikit-learn's 8×8 digits. The runs are chosen to
show help and harm: none is tuned for a policy, and every policy has the same numbers in
all of them. It takes five to ten minutes on two cores, nearly all of it tracing.

    python benchmarks/policies.py [--seeds 3 4 5] [--out docs/benchmarks]
"""

import argparse
import os
import pathlib
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

from keras_gradwatch.callbacks import GradientClipping
from keras_gradwatch.policies import (
    AdaGC,
    AdaptiveGradientClip,
    AutoClip,
    Centralize,
    Chain,
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    NormalizeCentered,
    ZClip,
)

BATCH, TRAINED = 32, 1440
POISONED = (30, 40)  # of 45 batches

POLICIES = {
    "none": None,
    "ClipByValue(0.1)": ClipByValue(0.1),
    "ClipByNorm(1.0)": ClipByNorm(1.0),
    "ClipByGlobalNorm(1.0)": ClipByGlobalNorm(1.0),
    'AdaptiveGradientClip(0.05, exclude=["head/"])': AdaptiveGradientClip(
        0.05, exclude=["head/"]
    ),
    "AutoClip()": AutoClip(),
    "ZClip()": ZClip(),
    "AdaGC()": AdaGC(),
    "Centralize()": Centralize(),
    "NormalizeCentered()": NormalizeCentered(),
    "Chain([Centralize(), ZClip()])": Chain([Centralize(), ZClip()]),
}


class Run(NamedTuple):
    """One way to train on digits.

    Attributes:
        title: In words.
        rate: Of plain SGD.
        depth: Number of hidden layers of 32 ReLU units.
        largest: Value of a black pixel.
        poison: What the pixels of two batches of an epoch are multiplied by.
        epochs: Of 45 steps.
    """

    title: str
    rate: float
    depth: int = 1
    largest: float = 1.0
    poison: float = 1.0
    epochs: int = 5


RUNS = {
    "healthy": Run("1 hidden layer, pixels 0 to 1, learning rate 0.1", 0.1),
    "raw pixels": Run("as healthy, pixels 0 to 16", 0.1, largest=16.0),
    "poisoned": Run("as healthy, 2 of 45 batches × 1,000", 0.1, poison=1e3),
    "deep": Run("8 hidden layers, learning rate 0.1", 0.1, depth=8),
    "small learning rate": Run("as healthy, learning rate 0.01", 0.01),
}


def data(run, seed):
    """`(x, y)` for training and `(x, y)` for testing."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = (x[order] / 16 * run.largest).astype("float32"), y[order]
    test = x[TRAINED:], y[TRAINED:]
    x, y = x[:TRAINED].copy(), y[:TRAINED]
    for batch in POISONED:
        x[batch * BATCH : (batch + 1) * BATCH] *= run.poison
    return (x, y), test


def accuracy(run, policy, seed):
    """Fraction of the test digits that a trained model knows."""
    keras.utils.set_random_seed(seed)
    train, test = data(run, seed)
    hidden = [
        layers.Dense(32, "relu", kernel_initializer="he_normal")
        for _ in range(run.depth)
    ]
    head = layers.Dense(10, name="head")
    model = keras.Sequential([keras.Input((64,)), *hidden, head])
    model.compile(
        keras.optimizers.SGD(run.rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callbacks = [GradientClipping(policy)] if policy else []
    # Without shuffling, so that a poisoned batch stays together.
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(*train, epochs=run.epochs, callbacks=callbacks, **options)
    logits = model.predict(test[0], batch_size=len(test[0]), verbose=0)
    return float(np.mean(np.argmax(logits, axis=1) == test[1]))


def main():
    """Measures all runs and prints the table; `--out` writes it, too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5])
    parser.add_argument("--out", type=pathlib.Path, help="folder for policies.md")
    arguments = parser.parse_args()
    lines = [
        "| policy | " + " | ".join(RUNS) + " |",
        "|---" * (1 + len(RUNS)) + "|",
    ]
    for name, policy in POLICIES.items():
        means = []
        for run in RUNS.values():
            found = [accuracy(run, policy, seed) for seed in arguments.seeds]
            means.append(f"{np.mean(found):.3f}")
            keras.backend.clear_session()
        lines.append(f"| `{name}` | " + " | ".join(means) + " |")
        print(lines[-1], flush=True)
    seeds = " ".join(map(str, arguments.seeds))
    where = f"{os.cpu_count()} cores, Keras {keras.__version__}"
    page = "\n".join(
        [
            "# What the policies do",
            "",
            "Accuracy on 357 test digits after 225 steps of plain SGD, mean over "
            f"{len(arguments.seeds)} seeds. Guessing",
            "gives 0.1. Every policy uses the same settings in all runs.",
            f"Measured on {where} by",
            "",
            f"    python benchmarks/policies.py --seeds {seeds}",
            "",
            *lines,
            "",
            *(f"- **{name}**: {run.title}" for name, run in RUNS.items()),
            "",
        ]
    )
    print(page)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "policies.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
