"""Quickstart: the same run that blows up, with and without keras_gradwatch.

Two runs on scikit-learn's handwritten digits: Adam at a rate of 1 on scaled pixels,
which no clip saves; and SGD at an ordinary rate, but on pixels that nobody scaled (0 to
16), where a clip does as well. Each is trained three times from the same seed: by stock
Keras, by Keras with `global_clipnorm=1.0`, and with `GradWatch` at its defaults.

    python examples/quickstart.py [--log-dir DIR] [--epochs N]

The stock runs are logged, too: the page at the end and TensorBoard show them, too.
"""

import argparse
import os
import sys

# No lines of TensorFlow's own before the table.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_gradwatch
from keras_gradwatch.reports import pages

SEED = 0


def data(scale):
    """Digits, 64 pixels from 0 to 16 times `scale`; a quarter is kept for the test."""
    digits = load_digits()
    return train_test_split(
        digits.data.astype("float32") * scale,
        digits.target,
        test_size=0.25,
        random_state=SEED,
        stratify=digits.target,
    )


def network(optimizer):
    """Three hidden layers of 64 ReLU units."""
    keras.utils.set_random_seed(SEED)
    hidden = [
        layers.Dense(64, "relu", kernel_initializer="he_normal", name=f"hidden_{i}")
        for i in range(1, 4)
    ]
    logits = layers.Dense(10, name="logits")
    model = keras.Sequential([keras.Input((64,)), *hidden, logits], name="digits")
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def train(optimizer, scale, epochs, *callbacks):
    """Trains one network; returns the cells of its row in the table."""
    x_train, x_test, y_train, y_test = data(scale)
    model = network(optimizer)
    seen = keras_gradwatch.GradientHistory()
    model.fit(
        x_train,
        y_train,
        batch_size=32,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, seen],
    )
    logits = model.predict(x_test, verbose=0)
    sound = np.isfinite(logits).all()
    accuracy = float((logits.argmax(1) == y_test).mean()) if sound else 0.0
    norms = seen.global_norm
    return {
        "test accuracy": f"{accuracy:.3f}",
        "largest norm": f"{np.max(norms[np.isfinite(norms)]):.3g}",
        "non-finite steps": int((~np.isfinite(norms)).sum()),
        "events": len(seen.events),
        "last rate": f"{float(model.optimizer.learning_rate):.3g}",
    }


def compare(title, make_optimizer, scale, epochs, log_dir):
    """Trains one scenario in the three ways and prints the table."""
    watch = keras_gradwatch.GradWatch(log_dir, update_freq=5, verbose=0)
    stock = keras_gradwatch.GradientTensorBoard(f"{log_dir}-stock", update_freq=5)
    clipped = make_optimizer(global_clipnorm=1.0)
    rows = {
        "stock Keras": train(make_optimizer(), scale, epochs, stock),
        "global_clipnorm=1": train(clipped, scale, epochs),
        "GradWatch()": train(make_optimizer(), scale, epochs, watch),
    }
    print(f"\n{title}")
    columns = rows["stock Keras"]
    print(f"{'':<18}" + "".join(f"{column:>17}" for column in columns))
    for name, row in rows.items():
        print(f"{name:<18}" + "".join(f"{row[column]:>17}" for column in columns))
    if watch.events:
        print(f"The first thing that GradWatch did:\n  {watch.events[0].message}")
    return watch


def tensorboard():
    """The command `tensorboard` of this environment."""
    beside = os.path.join(os.path.dirname(sys.executable), "tensorboard")
    if not os.path.exists(beside):
        return "tensorboard"
    return min(beside, os.path.relpath(beside), key=len)


def main():
    """Runs both scenarios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-dir", default="logs/quickstart")
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    print(
        "Handwritten digits, Dense 3x64 ReLU, the same seed for all; 'events' are\n"
        "steps that a detector found, 'last rate' is the learning rate at the end."
    )
    watch = compare(
        "Adam at a rate of 1, scaled pixels: no clip helps, Adam divides the norm out",
        lambda **clip: keras.optimizers.Adam(1.0, **clip),
        1 / 16,
        arguments.epochs,
        f"{arguments.log_dir}/adam",
    )
    compare(
        "SGD at a rate of 0.1, raw pixels (0 to 16): explodes in its first steps",
        lambda **clip: keras.optimizers.SGD(0.1, **clip),
        1.0,
        arguments.epochs,
        f"{arguments.log_dir}/sgd",
    )
    print(f"\nIts report at the end of the first run:\n{watch.report()}")
    compared = [f"{arguments.log_dir}/adam{suffix}" for suffix in ("-stock", "")]
    page = f"{arguments.log_dir}/compare.html"
    pages.write(compared, page)
    print(
        f"\nBoth runs on one page:\n  {page}\n"
        "The same in TensorBoard, in the tab Gradients:\n"
        f"  {tensorboard()} --logdir {arguments.log_dir}"
    )


if __name__ == "__main__":
    main()
