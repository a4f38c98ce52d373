"""Healthy runs of many kinds, and what was recorded of them."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_diabetes, load_digits

from keras_gradwatch.callbacks import GradientHistory
from keras_gradwatch.statistics.names import NAMES


class Recorded(NamedTuple):
    """One healthy run of T steps and V variables.

    Attributes:
        run: The `Run`.
        norm: Array [T], the global norm.
        loss: Array [T], each step's own.
        statistics: Array [T, V, 8], columns as in `statistics.names.NAMES`.
        sizes: Array [V], numbers of elements.
        kernels: Array [V], True where a variable has two or more axes.
        epoch: Steps in an epoch.
    """

    run: object
    norm: object
    loss: object
    statistics: object
    sizes: object
    kernels: object
    epoch: int


@dataclasses.dataclass(frozen=True)
class Run:
    """A way to train that is to be left alone.

    Attributes:
        name: In words.
        data: Function of nothing, returns `(x, y)`.
        build: Function of nothing, returns a list of layers, the input first.
        optimizer: Function of the number of steps, returns an optimizer.
        steps: Number of steps.
        batch: Batch size.
        loss: Of `compile`.
        limit: The first samples only.
    """

    name: str
    data: Callable
    build: Callable
    optimizer: Callable
    steps: int
    batch: int = 32
    loss: str = "classes"
    limit: int | None = None

    def make(self, seed):
        """`(compiled model, x, y)`; the same for the same seed."""
        keras.utils.set_random_seed(seed)
        x, y = self.data()
        order = np.random.default_rng(seed).permutation(len(x))[: self.limit]
        loss = self.loss
        if loss == "classes":
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model = keras.Sequential(self.build())
        # Many steps in one call: small models spend their time between the steps.
        model.compile(self.optimizer(self.steps), loss, steps_per_execution=20)
        return model, x[order], y[order]

    def record(self, seed):
        """Trains, and returns a `Recorded`."""
        model, x, y = self.make(seed)
        history = GradientHistory()
        epoch = -(-len(x) // self.batch)
        epochs = -(-self.steps // epoch)
        model.fit(x, y, self.batch, epochs=epochs, verbose=0, callbacks=[history])
        found, variables = history.statistics, model.trainable_variables
        return Recorded(
            self,
            history.global_norm,
            history.loss,
            np.stack([found[name] for name in NAMES], axis=-1),
            np.array([v.shape.num_elements() for v in variables], "float32"),
            np.array([v.ndim > 1 for v in variables]),
            epoch,
        )


def digits():
    """Handwritten digits from 0 to 1, [n, 64]."""
    x, y = load_digits(return_X_y=True)
    return (x / 16).astype("float32"), y.astype("int32")


def noisy_digits():
    """The same with three of ten labels drawn by chance."""
    x, y = digits()
    random = np.random.default_rng(0)
    return x, np.where(random.random(len(y)) < 0.3, random.integers(0, 10, len(y)), y)


def diabetes():
    """Ten standardized features, and a target of mean 0 and variance 1."""
    x, y = load_diabetes(return_X_y=True)
    return (x / x.std(axis=0)).astype("float32"), _standard(y)


def raw_diabetes():
    """The same with targets from 25 to 346."""
    x, y = load_diabetes(return_X_y=True)
    return (x / x.std(axis=0)).astype("float32"), y.astype("float32")


def teacher():
    """A smooth function of eight features, without noise."""
    random = np.random.default_rng(0)
    x = random.normal(size=(1500, 8)).astype("float32")
    return x, _standard(np.sin(x @ random.normal(size=8)) + x[:, 0] * x[:, 1])


def heavy_tails():
    """The same with Student's noise of two degrees of freedom."""
    x, y = teacher()
    noise = np.random.default_rng(1).standard_t(2, len(y))
    return x, (y + noise).astype("float32")


def odd_digits():
    """Digits, and -1 for even ones, 1 for odd ones."""
    x, y = digits()
    return x, (2 * (y % 2) - 1).astype("float32")


def zeros_and_ones():
    """The digits 0 and 1."""
    x, y = digits()
    return x[y < 2], y[y < 2]


def tokens():
    """Sequences of 16 of 20 tokens; the class is the number of zeros, up to 4."""
    random = np.random.default_rng(0)
    x = random.integers(0, 20, (1500, 16))
    x[random.random(x.shape) < 0.1] = 0
    return x.astype("int32"), np.minimum((x == 0).sum(axis=1), 4).astype("int32")


def _standard(y):
    return ((y - y.mean()) / y.std()).astype("float32")


def mlp(inputs=64, depth=2, width=64, outputs=10, activation="relu"):
    """Function that makes a stack of Dense layers."""

    def build():
        hidden = [
            layers.Dense(width, activation, kernel_initializer="he_normal")
            for _ in range(depth)
        ]
        return [keras.Input((inputs,)), *hidden, layers.Dense(outputs)]

    return build


def conv():
    """A small convolutional network for digits."""
    return [
        keras.Input((64,)),
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(16, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(32, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(10),
    ]


def lstm():
    """The rows of a digit as a sequence."""
    return [
        keras.Input((64,)),
        layers.Reshape((8, 8)),
        layers.LSTM(32),
        layers.Dense(10),
    ]


class Attention(layers.Layer):
    """A block of a transformer, layer normalization first."""

    def __init__(self, width):
        super().__init__()
        self.norms = [layers.LayerNormalization() for _ in range(2)]
        self.attention = layers.MultiHeadAttention(2, width // 2)
        self.dense = [layers.Dense(2 * width, "gelu"), layers.Dense(width)]

    def build(self, shape):
        """Makes the weights of the inner layers."""
        self.attention.build(shape, shape)
        for norm in self.norms:
            norm.build(shape)
        self.dense[0].build(shape)
        self.dense[1].build((*shape[:-1], self.dense[0].units))

    def call(self, x):
        """Attention, and two Dense layers, each beside what it is added to."""
        y = self.norms[0](x)
        x = x + self.attention(y, y)
        return x + self.dense[1](self.dense[0](self.norms[1](x)))


def transformer():
    """Two blocks on an embedding."""
    return [
        keras.Input((16,), dtype="int32"),
        layers.Embedding(20, 32),
        Attention(32),
        Attention(32),
        layers.GlobalAveragePooling1D(),
        layers.Dense(5),
    ]


def dropout():
    """Dropout and BatchNorm."""
    block = [layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)]
    return [keras.Input((64,)), layers.Dense(64), *block, layers.Dense(10)]


def adam(rate=1e-3):
    """Function that makes an Adam."""
    return lambda steps: keras.optimizers.Adam(rate)


def sgd(rate, momentum=0.0):
    """Function that makes an SGD."""
    return lambda steps: keras.optimizers.SGD(rate, momentum)


def cosine(steps):
    """Adam, warmed up in a tenth of the steps, then on a cosine to 0."""
    warm = steps // 10
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm, warmup_target=3e-3, warmup_steps=warm
    )
    return keras.optimizers.Adam(schedule)


LONG = 5000
RUNS = [
    Run("MLP, Adam", digits, mlp(), adam(), 560),
    Run("MLP, SGD", digits, mlp(), sgd(0.1), 560),
    Run("12×128 MLP, Adam", digits, mlp(depth=12, width=128), adam(), 560),
    Run("convolutions, Adam", digits, conv, adam(), 560),
    Run("LSTM, Adam", digits, lstm, adam(3e-3), 560),
    Run("transformer, Adam", tokens, transformer, adam(), 560),
    Run("dropout and BatchNorm, Adam", digits, dropout, adam(), 560),
    Run("MLP, warm-up and cosine", digits, mlp(), cosine, 560),
    Run("noisy labels, Adam", noisy_digits, mlp(), adam(3e-3), 1100),
    Run("regression, Adam", diabetes, mlp(10, outputs=1), adam(), 560, loss="mse"),
    Run(
        "regression, raw targets, Adam",
        raw_diabetes,
        mlp(10, outputs=1),
        adam(0.01),
        560,
        loss="mse",
    ),
    Run("far into convergence, Adam", digits, mlp(), adam(0.01), 2000, limit=320),
    Run("far into convergence, SGD", digits, mlp(), sgd(0.05, 0.9), 2000, limit=320),
    Run("batch 1, MLP, SGD 0.01", digits, mlp(), sgd(0.01), LONG, 1),
    Run("batch 1, MLP, momentum", digits, mlp(), sgd(1e-3, 0.9), LONG, 1),
    Run("batch 1, convolutions, Adam", digits, conv, adam(3e-4), LONG, 1),
    Run("batch 1, learnt by heart", digits, mlp(), sgd(0.03), LONG, 1, limit=200),
    Run("batch 1, two classes, SGD 0.1", zeros_and_ones, mlp(), sgd(0.1), LONG, 1),
    Run(
        "batch 1, hinge loss, SGD 0.01",
        odd_digits,
        mlp(outputs=1),
        sgd(0.01),
        LONG,
        1,
        "hinge",
    ),
    Run(
        "batch 1, 12×64 MLP, Adam",
        digits,
        mlp(depth=12),
        adam(1e-4),
        LONG,
        1,
    ),
    Run(
        "batch 1, heavy-tailed targets, SGD",
        heavy_tails,
        mlp(8, outputs=1, activation="tanh"),
        sgd(1e-4),
        LONG,
        1,
        "mse",
    ),
    Run(
        "batch 1, regression, momentum",
        diabetes,
        mlp(10, outputs=1),
        sgd(1e-3, 0.9),
        LONG,
        1,
        "mse",
    ),
    Run(
        "batch 1, smooth function, momentum",
        teacher,
        mlp(8, outputs=1, activation="tanh"),
        sgd(1e-3, 0.9),
        LONG,
        1,
        "mse",
    ),
]
