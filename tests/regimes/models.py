"""The models of the matrix: digits, float [64], to logits of 10 classes, all tiny."""

import keras
from keras import layers, ops

from tests import steps


def chain(*inner):
    """A functional model of layers in a row."""
    inputs = outputs = keras.Input((64,))
    for layer in inner:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def dense():
    return chain(
        layers.Dense(8), layers.BatchNormalization(), layers.ReLU(), layers.Dense(10)
    )


def conv():
    return chain(
        layers.Reshape((8, 8, 1)),
        layers.Conv2D(3, 3, strides=2),
        layers.BatchNormalization(),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(10),
    )


def embedding():
    """Its ids repeat, so its sparse gradient has several rows of one id."""
    inputs = keras.Input((64,))
    # A pixel that is NaN has no id; it comes in by the other way.
    ids = ops.cast(ops.nan_to_num(inputs[:, ::4]) * 4, "int32")
    words = layers.Embedding(6, 4)(ids)
    joined = layers.Concatenate()([layers.Flatten()(words), inputs])
    return keras.Model(inputs, layers.Dense(10)(joined))


def shared_layer():
    shared = layers.Dense(8, activation="tanh")
    return chain(layers.Dense(8), shared, shared, layers.Dense(10))


def recurrent():
    return chain(
        layers.Reshape((8, 8)),
        layers.LSTM(4),
        layers.Dense(10),
    )


def frozen_batchnorm():
    return chain(
        layers.Dense(8), layers.BatchNormalization(trainable=False), layers.Dense(10)
    )


def lora():
    """A kernel is frozen, and has two trained factors beside it."""
    model = chain(layers.Dense(8), layers.Dense(10))
    model.layers[1].enable_lora(2)
    return model


def two_inputs_two_outputs():
    left, right = keras.Input((32,), name="left"), keras.Input((32,), name="right")
    hidden = layers.Dense(8)(layers.Concatenate()([left, right]))
    digit = layers.Dense(10, name="digit")(hidden)
    parity = layers.Dense(2, name="parity")(layers.Dense(4)(left))
    return keras.Model(
        {"left": left, "right": right}, {"digit": digit, "parity": parity}
    )


def mean_square(x):
    """A penalty in float32: Keras adds no losses of several types."""
    return 0.01 * ops.mean(ops.square(ops.cast(x, "float32")))


class OwnLoss(layers.Layer):
    def call(self, x):
        self.add_loss(mean_square(x))
        return x


def added_losses():
    hidden = layers.Dense(8, activity_regularizer=mean_square, kernel_regularizer="l1")
    return chain(hidden, OwnLoss(), layers.Dense(10))


class Counter(layers.Layer):
    """Counts its training steps in a variable that is not trained."""

    def build(self, shape):
        self.count = self.add_weight(
            initializer="zeros", trainable=False, aggregation="only_first_replica"
        )

    def call(self, x, training=False):
        if training:
            self.count.assign_add(1)
        return x


class OwnDropout(layers.Layer):
    """Dropout with a seed generator of its own."""

    def __init__(self):
        super().__init__()
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, x, training=False):
        return keras.random.dropout(x, 0.2, seed=self.seeds) if training else x


def counter_dropout():
    return chain(layers.Dense(8), Counter(), OwnDropout(), layers.Dense(10))


def nested():
    inner = keras.Sequential([layers.Dense(8), layers.BatchNormalization()])
    inputs = keras.Input((64,))
    outer = keras.Model(inputs, layers.ReLU()(inner(inputs)))
    return chain(outer, layers.Dense(10))


class Block(layers.Layer):
    def __init__(self):
        super().__init__(name="block")
        self.query = layers.Dense(8, name="query")

    def call(self, x):
        return self.query(x)


class EqualPaths(keras.Model):
    """Its two blocks have kernels of one path."""

    def __init__(self):
        super().__init__()
        self.blocks = [Block(), Block()]
        self.head = layers.Dense(10)

    def call(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def constraints():
    hidden = layers.Dense(
        8, kernel_constraint=keras.constraints.MaxNorm(1.2), bias_constraint="non_neg"
    )
    return chain(hidden, layers.Dense(10))


class Subclassed(keras.Model):
    """Unbuilt until its first batch."""

    def __init__(self):
        super().__init__()
        self.hidden = layers.Dense(8)
        self.norm = layers.BatchNormalization()
        self.head = layers.Dense(10)

    def call(self, x, training=False):
        return self.head(ops.relu(self.norm(self.hidden(x), training=training)))


class OwnStep(steps.OwnStep, Subclassed):
    """Trains on a loss of its own, with a metric of its own."""

    def __init__(self):
        super().__init__()
        self.seen = keras.metrics.Mean(name="seen")

    def own_loss(self, data):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        logits = self(x, training=True)
        loss = self.compute_loss(x, y, logits, weights)
        return loss + ops.cast(0.01 * ops.mean(ops.square(logits)), loss.dtype), logits

    def own_logs(self, data, loss, logits):
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        self.seen.update_state(loss)
        return {**self.compute_metrics(x, y, logits, weights), "own_loss": loss}


def float8():
    """Its scales are overwritten by what stands for their gradients."""
    model = chain(layers.Dense(16), layers.Dense(10))
    model.layers[1].quantize("float8")
    return model


def int8_lora():
    """A kernel of integers that is not trained, and two factors that are."""
    model = chain(layers.Dense(16), layers.Dense(10))
    model.layers[1].quantize("int8")
    model.layers[1].enable_lora(2)
    return model


MODELS = {
    "dense": dense,
    "conv": conv,
    "embedding": embedding,
    "shared_layer": shared_layer,
    "recurrent": recurrent,
    "frozen_batchnorm": frozen_batchnorm,
    "lora": lora,
    "two_inputs_two_outputs": two_inputs_two_outputs,
    "added_losses": added_losses,
    "counter_dropout": counter_dropout,
    "nested": nested,
    "equal_paths": EqualPaths,
    "constraints": constraints,
    "subclassed": Subclassed,
    "own_step": OwnStep,
    "float8": float8,
    "int8_lora": int8_lora,
}
# Random masks go on where a batch is skipped: only the last one can be left out.
RANDOM = ("counter_dropout",)


def data_for(model, x, y):
    """Digits `x` [n, 64] and `y` [n] as inputs and targets of the model so named."""
    if model != "two_inputs_two_outputs":
        return x, y
    halves = {"left": x[:, :32], "right": x[:, 32:]}
    return halves, {"digit": y, "parity": y % 2}


def loss_for(model):
    """Arguments of `compile` that set the loss and metrics of the model so named."""
    if model != "two_inputs_two_outputs":
        return {"loss": _cross_entropy(), "weighted_metrics": ["accuracy"]}
    return {
        "loss": {"digit": _cross_entropy(), "parity": _cross_entropy()},
        "loss_weights": {"digit": 1.0, "parity": 0.5},
        "weighted_metrics": {"digit": ["accuracy"], "parity": ["accuracy"]},
    }


def _cross_entropy():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
