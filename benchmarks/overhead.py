"""What watching costs: time of `fit` with `GradWatch` against stock Keras.

Variants are run in turn, in shuffled order, in one process; each round gives one ratio
against the stock model of the same round, and the table shows the medians. A second
stock model is the control: where it is off by more than 2%, the machine was too noisy
for a verdict. Every `fit` is one epoch in the steady state: the first `fit` of each
variant (tracing, the dense steps of the trust bound) is not counted.

    python benchmarks/overhead.py [--rounds 9] [--steps 100] [--out docs/benchmarks]
"""

import argparse
import os
import pathlib
import platform
import statistics
import tempfile
import time

import keras
import numpy as np
from keras import layers

import keras_gradwatch


def resnet20():
    """ResNet-20 on 32×32 images, batch 32: 65 variables."""

    def unit(x, filters, stride):
        y = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(filters, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        if stride > 1:
            x = layers.Conv2D(filters, 1, stride, use_bias=False)(x)
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters in (16, 32, 64):
        for index in range(3):
            x = unit(x, filters, 2 if index == 0 and filters > 16 else 1)
    outputs = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, outputs), (32, 32, 3), 32


def mlp():
    """MLP 3×256 on 64 inputs, batch 128: 8 variables."""
    hidden = [layers.Dense(256, activation="relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, layers.Dense(10)])
    return model, (64,), 128


MODELS = {"ResNet-20, batch 32": resnet20, "MLP 3x256, batch 128": mlp}


def variants(log_dir):
    """Name to the callbacks of that variant."""
    watch = keras_gradwatch.callbacks.GradWatch
    return {
        "stock": lambda: [],
        "control (stock again)": lambda: [],
        "GradWatch(log_dir)": lambda: [watch(log_dir=log_dir, verbose=0)],
        "trust bound at every step": lambda: [
            watch(log_dir=log_dir, verbose=0, dense_steps=10**9)
        ],
        "GradientHistory()": lambda: [keras_gradwatch.callbacks.GradientHistory()],
    }


def measure(make, rounds, steps, log_dir):
    """Median ratios of the variants of one model against stock."""
    random = np.random.default_rng(0)
    fits = {}
    for name, callbacks in variants(log_dir).items():
        keras.utils.set_random_seed(0)
        model, shape, batch = make()
        model.compile(
            keras.optimizers.SGD(1e-3),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        x = random.normal(size=(batch * steps, *shape)).astype("float32")
        y = random.integers(0, 10, len(x))
        fits[name] = _fit(model, x, y, batch, callbacks())
        fits[name]()  # traces, and passes the dense steps
        fits[name]()
    times = {name: [] for name in fits}
    names = list(fits)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            start = time.perf_counter()
            fits[name]()
            times[name].append(time.perf_counter() - start)
    ratios = {
        name: statistics.median(
            t / s for t, s in zip(times[name], times["stock"], strict=True)
        )
        for name in fits
    }
    return ratios, statistics.median(times["stock"]) / steps * 1e3


def _fit(model, x, y, batch, callbacks):
    def fit():
        model.fit(x, y, batch_size=batch, verbose=0, shuffle=False, callbacks=callbacks)

    return fit


def main():
    """Measures all models and prints the table; `--out` writes it, too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=pathlib.Path, help="folder for overhead.md")
    arguments = parser.parse_args()
    lines = ["| model | stock, ms a step | variant | ratio |", "|---|---|---|---|"]
    for title, make in MODELS.items():
        with tempfile.TemporaryDirectory() as log_dir:
            ratios, step = measure(make, arguments.rounds, arguments.steps, log_dir)
        for name, ratio in ratios.items():
            if name != "stock":
                lines.append(f"| {title} | {step:.2f} | {name} | {ratio:.3f} |")
    backend = keras.config.backend()
    command = f"KERAS_BACKEND={backend} "
    command += f"python benchmarks/overhead.py --rounds {arguments.rounds} "
    command += f"--steps {arguments.steps}"
    where = f"{os.cpu_count()} cores ({platform.machine()}), Keras {keras.__version__}"
    page = "\n".join(
        [
            f"# What watching costs: {backend}",
            "",
            "Time of one `fit` against stock Keras, medians of paired ratios; every "
            "variable at every step.",
            f"Measured on {where} by",
            "",
            f"    {command}",
            "",
            *lines,
            "",
        ]
    )
    print(page)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        path = arguments.out / f"overhead_{backend}.md"
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
