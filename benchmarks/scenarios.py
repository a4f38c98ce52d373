"""Training runs that blow up, and healthy ones: data, model, optimizer, score."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from keras.initializers import Orthogonal, RandomNormal
from keras.optimizers import SGD, Adam
from sklearn import datasets

POISONED = slice(640, 672)  # the rows of one batch of 32


@dataclass(frozen=True)
class Scenario:
    """One run.

    Attributes:
        title: What it is, in a line.
        data: Function without arguments: `(x, y)`.
        model: Function of the number of inputs: an uncompiled model.
        optimizer: Function without arguments: an optimizer.
        epochs: Number of epochs.
        batch_size: Rows of a batch.
        regression: True for a mean squared error, False for classes from logits.
        poison: Function that spoils the training data in place, or None. Then rows are
            not shuffled, so that what is spoiled is one batch of each epoch.
    """

    title: str
    data: Callable
    model: Callable
    optimizer: Callable
    epochs: int
    batch_size: int = 32
    regression: bool = False
    poison: Callable | None = None

    def split(self):
        """`(x, y), (x, y)`: for training, spoiled where it is to be, and for tests."""
        x, y = self.data()
        order = np.random.RandomState(1234).permutation(len(x))
        test, train = np.split(order, [len(x) // 4])
        (a, b), held_out = (x[train], y[train]), (x[test], y[test])
        if self.poison is not None:
            self.poison(a, b)
        return (a, b), held_out

    def run(self, seed, callbacks=(), clip=None, rate=1.0):
        """Trains once.

        Args:
            seed: Of weights and shuffling.
            callbacks: For `fit`.
            clip: `(name, value)` of a clip of the optimizer itself, or None.
            rate: What the learning rate is multiplied by.

        Returns:
            The score: classes: (accuracy − chance) / (1 − chance), chance being the
            most frequent class; regression: R², no less than 0. 0 for predictions
            that are not finite.
        """
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        (x, y), (x_test, y_test) = self.split()
        model, optimizer = self.model(x.shape[1]), self.optimizer()
        optimizer.learning_rate = float(optimizer.learning_rate) * rate
        if clip is not None:
            setattr(optimizer, *clip)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, "mse" if self.regression else loss)
        model.fit(
            x,
            y,
            self.batch_size,
            self.epochs,
            verbose=0,
            shuffle=self.poison is None,
            callbacks=list(callbacks),
        )
        return self.score(model.predict(x_test, verbose=0), y_test), model

    def score(self, predicted, y):
        """The score of predictions; see `run`."""
        if not np.isfinite(predicted).all():
            return 0.0
        if self.regression:
            left = ((predicted[:, 0] - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
            return max(0.0, float(1 - left))
        chance = np.bincount(y).max() / len(y)
        return float(((predicted.argmax(1) == y).mean() - chance) / (1 - chance))


def digits(scale=1.0):
    def load():
        x, y = datasets.load_digits(return_X_y=True)
        return (x * scale).astype("float32"), y

    return load


def raw(loader):
    def load():
        x, y = loader(return_X_y=True)
        return x.astype("float32"), y

    return load


def diabetes():
    x, y = datasets.load_diabetes(return_X_y=True, scaled=False)
    return (x / x.std(0)).astype("float32"), y.astype("float32")


def stack(depth, units, outputs, initializer="he_normal", activation="relu"):
    """A stack of dense layers; `initializer` is a name, or makes one."""

    def make(inputs):
        made = initializer if isinstance(initializer, str) else None
        return keras.Sequential(
            [
                keras.Input((inputs,)),
                *(
                    layers.Dense(
                        units, activation, kernel_initializer=made or initializer()
                    )
                    for _ in range(depth)
                ),
                layers.Dense(outputs),
            ]
        )

    return make


def recurrent(cell, repeats=1):
    """The rows of a digit as 8 steps, over and over, for a layer of `cell()`."""

    def make(inputs):
        rows = [layers.Reshape((8, 8))(start := keras.Input((inputs,)))] * repeats
        steps = layers.Concatenate(axis=1)(rows) if repeats > 1 else rows[0]
        return keras.Model(start, layers.Dense(10)(cell()(steps)))

    return make


def convolutional(inputs):
    parts = [keras.Input((inputs,)), layers.Reshape((8, 8, 1))]
    for filters in (16, 32):
        parts += [
            layers.Conv2D(filters, 3, padding="same", activation="relu"),
            layers.MaxPool2D(),
        ]
    return keras.Sequential([*parts, layers.Flatten(), layers.Dense(10)])


def normal():
    return RandomNormal(0.0, 1.0)


def linear_rnn():
    return layers.SimpleRNN(48, None, recurrent_initializer=Orthogonal(1.5))


def spoil_inputs(x, y):
    x[POISONED] *= 1e6


LISTED = {
    "relu_unit_normal": Scenario(
        "digits/16, 10×64 relu, kernels N(0, 1), SGD .01",
        digits(1 / 16),
        stack(10, 64, 10, normal),
        lambda: SGD(0.01),
        12,
    ),
    "digits_unscaled": Scenario(
        "digits 0–16, 3×64 relu, SGD .1",
        digits(),
        stack(3, 64, 10),
        lambda: SGD(0.1),
        12,
    ),
    "cancer_raw": Scenario(
        "breast cancer, raw features, 2×32 relu, SGD .01",
        raw(datasets.load_breast_cancer),
        stack(2, 32, 2),
        lambda: SGD(0.01),
        30,
    ),
    "diabetes_raw": Scenario(
        "diabetes, raw targets, 2×64 relu, SGD .01",
        diabetes,
        stack(2, 64, 1),
        lambda: SGD(0.01),
        40,
        regression=True,
    ),
    "adam_lr_one": Scenario(
        "digits/16, 2×64 relu, Adam 1.0",
        digits(1 / 16),
        stack(2, 64, 10),
        lambda: Adam(1.0),
        12,
    ),
    "rows_linear_rnn": Scenario(
        "digits' rows × 3, SimpleRNN 48 linear, recurrent gain 1.5, SGD .05",
        digits(1 / 16),
        recurrent(linear_rnn, 3),
        lambda: SGD(0.05),
        8,
    ),
    "poison_batch": Scenario(
        "digits/16, 2×64 relu, SGD .1 momentum .9, one batch × 10⁶",
        digits(1 / 16),
        stack(2, 64, 10, "glorot_uniform"),
        lambda: SGD(0.1, 0.9),
        8,
        poison=spoil_inputs,
    ),
}
"""Runs that blow up."""

HEALTHY = {
    "deep_adam": Scenario(
        "digits/16, 12×128 relu, Adam .001",
        digits(1 / 16),
        stack(12, 128, 10),
        lambda: Adam(1e-3),
        6,
    ),
    "shallow_sgd": Scenario(
        "digits/16, 1×64 relu, SGD .1",
        digits(1 / 16),
        stack(1, 64, 10, "glorot_uniform"),
        lambda: SGD(0.1),
        8,
    ),
    "circles_narrow": Scenario(
        "two circles, 15×5 relu, Adam .001",
        lambda: datasets.make_circles(1000, noise=0.1, factor=0.3, random_state=0),
        stack(15, 5, 2),
        lambda: Adam(1e-3),
        20,
    ),
    "batch_size_one": Scenario(
        "digits/16, 1×32 relu, SGD .01 momentum .9, batch size 1",
        digits(1 / 16),
        stack(1, 32, 10, "glorot_uniform"),
        lambda: SGD(0.01, 0.9),
        2,
        batch_size=1,
    ),
    "lstm_adam": Scenario(
        "digits' rows, LSTM 32, Adam .003",
        digits(1 / 16),
        recurrent(lambda: layers.LSTM(32)),
        lambda: Adam(3e-3),
        8,
    ),
    "conv_adam": Scenario(
        "digits/16, two convolutions, Adam .001",
        digits(1 / 16),
        convolutional,
        lambda: Adam(1e-3),
        6,
    ),
}
"""Runs that are to be left alone."""
