"""Six models whose steps are timed, each with data on which it stays healthy.

Rates are small and data is random: what is measured is time, not learning. Each model
is built anew for each variant, with the same seed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, optimizers

VOCABULARY, LENGTH, WIDTH = 8000, 32, 192


@dataclass(frozen=True)
class Workload:
    """A model, and what it is trained with.

    Attributes:
        title: For people.
        layers: Function that returns `(inputs, outputs)`.
        data: Function of a generator and a number of samples; returns `(x, y)`.
        batch_size: Samples in a step.
        optimizer: Function that takes an optimizer's keywords and returns it.
    """

    title: str
    layers: Callable
    data: Callable
    batch_size: int
    optimizer: Callable

    def build(self, base=keras.Model, jit=False, steps_per_execution=1, **clip):
        """A compiled model of the class `base`; equal weights at every call."""
        keras.utils.set_random_seed(0)
        model = base(*self.layers())
        model.compile(
            self.optimizer(**clip),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
            jit_compile=jit,
            steps_per_execution=steps_per_execution,
        )
        return model

    def samples(self, steps):
        """`(x, y)` for a number of steps; the same at every call."""
        return self.data(np.random.default_rng(0), steps * self.batch_size)


def images(random, count):
    x = random.normal(size=(count, 32, 32, 3)).astype("float32")
    return x, random.integers(0, 10, count)


def tokens(random, count):
    x = random.integers(0, VOCABULARY, (count, LENGTH))
    return x, random.integers(0, VOCABULARY, (count, LENGTH))


def sequences(random, count):
    x = random.normal(size=(count, 50, 32)).astype("float32")
    return x, random.integers(0, 10, count)


def features(size):
    def data(random, count):
        x = random.normal(size=(count, size)).astype("float32")
        return x, random.integers(0, 10, count)

    return data


def resnet():
    def convolution(x, filters, stride=1, kernel=3):
        return layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False)(x)

    def unit(x, filters, stride):
        y = layers.BatchNormalization()(convolution(x, filters, stride))
        y = layers.BatchNormalization()(convolution(layers.ReLU()(y), filters))
        if stride > 1:
            x = convolution(x, filters, stride, kernel=1)
        return layers.ReLU()(layers.Add()([x, y]))

    inputs = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(convolution(inputs, 16)))
    for filters in (16, 32, 64):
        for index in range(3):
            x = unit(x, filters, 2 if index == 0 and filters > 16 else 1)
    return inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


def mobilenet():
    shape = (32, 32, 3)
    made = keras.applications.MobileNetV3Small(
        input_shape=shape, weights=None, include_top=False, pooling="avg"
    )
    return made.input, layers.Dense(10)(made.output)


def transformer():
    inputs = keras.Input((LENGTH,), dtype="int32")
    x = layers.Embedding(VOCABULARY, WIDTH)(inputs)  # where they stand costs nothing
    for _ in range(4):
        y = layers.LayerNormalization()(x)
        y = layers.MultiHeadAttention(4, WIDTH // 4)(y, y, use_causal_mask=True)
        x = layers.Add()([x, y])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(WIDTH)(layers.Dense(4 * WIDTH, "gelu")(y))
        x = layers.Add()([x, y])
    return inputs, layers.Dense(VOCABULARY)(layers.LayerNormalization()(x))


def lstm():
    inputs = keras.Input((50, 32))
    return inputs, layers.Dense(10)(layers.LSTM(128)(inputs))


def mlp():
    inputs = outputs = keras.Input((64,))
    for _ in range(3):
        outputs = layers.Dense(256, activation="relu")(outputs)
    return inputs, layers.Dense(10)(outputs)


def deep():
    inputs = x = keras.Input((32,))
    for index in range(499):
        # Residual, and with small kernels: 500 layers neither explode nor vanish.
        small = keras.initializers.VarianceScaling(1 / 500, seed=index)
        y = layers.Dense(32, "tanh", kernel_initializer=small)(x)
        x = layers.Add()([x, y])
    return inputs, layers.Dense(10)(x)


def momentum(**clip):
    return optimizers.SGD(1e-3, momentum=0.9, **clip)


def sgd(**clip):
    return optimizers.SGD(1e-3, **clip)


def adam(**clip):
    return optimizers.Adam(1e-4, **clip)


MODELS = {
    "resnet": Workload("ResNet-20, batch 32", resnet, images, 32, momentum),
    "transformer": Workload("transformer, batch 8", transformer, tokens, 8, adam),
    "lstm": Workload(
        "LSTM 128, sequence length 50, batch 32", lstm, sequences, 32, adam
    ),
    "mlp": Workload("MLP 3×256, batch 128", mlp, features(64), 128, sgd),
    "mobilenet": Workload(
        "MobileNetV3Small, 32×32, batch 32", mobilenet, images, 32, momentum
    ),
    "deep": Workload("500 dense layers of 32, batch 32", deep, features(32), 32, sgd),
}
