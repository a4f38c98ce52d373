"""Draws `images/before_after.png`: a run that explodes, and the same run protected.

python docs/before_after.py [--out docs/images]
"""

import argparse
import pathlib

import keras
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits

import keras_gradwatch


def train(protected):
    """Trains a network on digits with Adam at a rate of 1; returns its history."""
    x, y = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu") for _ in range(3)]
    model = keras.Sequential([keras.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.0), loss)
    history = keras_gradwatch.GradientHistory()
    watch = [keras_gradwatch.GradWatch(verbose=0)] if protected else []
    model.fit(x / 16, y, epochs=8, verbose=0, callbacks=[history, *watch])
    return history


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default="docs/images")
    folder = parser.parse_args().out
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    runs = {"stock Keras": (False, "tab:red"), "GradWatch()": (True, "tab:blue")}
    for title, (protected, colour) in runs.items():
        history = train(protected)
        axes[0].plot(history.steps, history.loss, color=colour, label=title)
        axes[1].plot(history.steps, history.global_norm, color=colour, label=title)
    for ax, title in zip(axes, ("loss of each step", "gradient norm"), strict=True):
        ax.set(title=title, xlabel="step", yscale="log")
        ax.grid(alpha=0.3)
    axes[0].legend()
    figure.savefig(folder / "before_after.png", dpi=110)


if __name__ == "__main__":
    main()
