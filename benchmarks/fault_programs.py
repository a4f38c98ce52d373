"""Small training programs: data, architecture and settings, all plain values.

A fault is an edit of a `Program`, and so is a repair. The families of `"dev"` and of
`"test"` have no data in common; the rules of the report may be tuned on `"dev"` alone.
"""

import dataclasses
import functools
from dataclasses import dataclass

import fault_data as data
import keras
import numpy as np
from fault_data import CHANGES, ROWS
from keras import layers, ops

LOSSES = {
    "classes": "sparse_categorical_crossentropy",
    "binary": "binary_crossentropy",
    "regression": "mse",
    "counts": "poisson",
}
LAST = {"classes": "softmax", "binary": "sigmoid", "counts": "exponential"}


@dataclass(frozen=True)
class Program:
    """Data, architecture and settings; None is what fits the task."""

    data: object
    body: str = "mlp"
    depth: int = 2
    width: int = 32
    activation: str = "relu"
    init: tuple = ("he_normal", ())
    recurrent_gain: float = 1.0
    bias: float = 0.0
    last: str | None = None
    units: int | None = None
    loss: str | None = None
    from_logits: bool = False
    one_hot: bool = False
    optimizer: str = "Adam"
    rate: float = 3e-3
    momentum: float = 0.0
    batch: int = 32
    epochs: int = 16
    dropout: float = 0.0
    normalized: bool = False
    scales_inputs: bool = False
    penalty: str = ""
    frozen: bool = False
    extra: str = ""
    dtype: str = "float32"
    changes: tuple = ()

    def __str__(self):
        return f"{self.data.__name__} {self.body}"

    def replace(self, **edits):
        return dataclasses.replace(self, **edits)

    @functools.cached_property
    def task(self):
        return self.data()[2]

    def arrays(self, training):
        """`(x, y)` of the rows to train on, or of the others, a fifth."""
        x, y, _ = self.data()
        parts = x if isinstance(x, list) else [x]
        order = np.random.default_rng(0).permutation(len(y))[:ROWS]
        rows = (
            order[: len(order) * 4 // 5] if training else order[len(order) * 4 // 5 :]
        )
        x, y = [part[rows] for part in parts], y[rows]
        x = x if len(x) > 1 else x[0]
        for name, size in self.changes:
            x, y = CHANGES[name](x, y, size, training)
        kind = "int32" if self.body == "words" else "float32"
        x = [p.astype(kind) for p in x] if isinstance(x, list) else x.astype(kind)
        return x, y

    def targets(self, y):
        """Targets as they are given to `fit`."""
        if self.one_hot:
            return keras.utils.to_categorical(y.astype(int))
        sparse = "sparse" in self._loss()
        return y.astype("int32" if sparse else "float32")[:, None]

    def _loss(self):
        return self.loss or LOSSES[self.task]

    def model(self, x):
        """A compiled model for inputs like `x`."""
        keras.config.set_dtype_policy(self.dtype)
        try:
            return self._model(x)
        finally:
            keras.config.set_dtype_policy("float32")

    def _model(self, x):
        parts = x if isinstance(x, list) else [x]
        inputs = [keras.Input(part.shape[1:], dtype=part.dtype) for part in parts]
        hidden = [self._hidden(i, part) for i, part in zip(inputs, parts, strict=True)]
        h = hidden[0]
        if len(hidden) > 1:
            h = layers.Concatenate()(hidden)
            h = self._dense()(h) if self.depth else h
        if self.extra:
            h = Extra(self.extra)(h)
        last = self.last or LAST.get(self.task, "linear")
        classes = len(np.unique(self.data()[1])) if self.task == "classes" else 1
        outputs = layers.Dense(self.units or classes, last)(h)
        model = keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)
        if self.frozen:
            for layer in (
                model.layers[:-1] if self.frozen == "all but last" else [model]
            ):
                layer.trainable = False
        config = {"learning_rate": self.rate}
        if self.momentum:
            config["momentum"] = self.momentum
        optimizer = {"class_name": self.optimizer, "config": config}
        loss = self._loss()
        if self.from_logits:
            sparse = keras.losses.SparseCategoricalCrossentropy
            binary = keras.losses.BinaryCrossentropy
            loss = (binary if "binary" in loss else sparse)(from_logits=True)
        metrics = ["accuracy"] if self.task in ("classes", "binary") else []
        model.compile(keras.optimizers.get(optimizer), loss, metrics=metrics)
        return model

    def _hidden(self, h, x):
        if self.scales_inputs and self.body != "words":
            normalize = layers.Normalization()
            normalize.adapt(x)
            h = normalize(h)
        if self.body == "cnn":
            h = layers.Reshape((8, 8, 1))(h)
            for _ in range(self.depth):
                h = layers.Conv2D(8, 3, activation=self.activation, **self._weights())(
                    h
                )
            h = layers.Flatten()(h)
        elif self.body in ("lstm", "gru", "rnn"):
            cell = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}
            gain = keras.initializers.Orthogonal(self.recurrent_gain, seed=1)
            options = {"activation": self.activation} if self.body == "rnn" else {}
            h = cell[self.body](self.width, recurrent_initializer=gain, **options)(h)
        elif self.body == "words":
            h = layers.GlobalAveragePooling1D()(layers.Embedding(40, 16)(h))
            h = self._dense()(h) if self.depth else h
        else:
            for _ in range(self.depth):
                h = self._dense()(h)
                h = layers.BatchNormalization()(h) if self.normalized else h
        return layers.Dropout(self.dropout)(h) if self.dropout else h

    def _dense(self):
        penalty = {"l2": keras.regularizers.L2(1e-4), "log": _log_penalty}
        return layers.Dense(
            self.width,
            self.activation,
            kernel_regularizer=penalty.get(self.penalty),
            **self._weights(),
        )

    def _weights(self):
        name, config = self.init
        made = keras.initializers.get({"class_name": name, "config": dict(config)})
        return {
            "kernel_initializer": made,
            "bias_initializer": keras.initializers.Constant(self.bias),
        }

    def score(self, model):
        """Of the held-out rows: R², or accuracy above chance, 1 if all are right."""
        x, y = self.arrays(training=False)
        said = model(x, training=False)
        said = np.nan_to_num(keras.ops.convert_to_numpy(said).astype("float64"))
        if self.task in ("regression", "counts"):
            rest = np.square(said[:, 0] - y).sum() / np.square(y - y.mean()).sum()
            return max(0.0, 1 - rest)
        if said.shape[1] > 1:
            named = said.argmax(axis=1)
        elif self.task == "classes":
            named = np.round(said[:, 0])
        else:
            middle = 0.0 if self.from_logits else (y.min() + y.max()) / 2
            named = np.where(said[:, 0] > middle, y.max(), y.min())
        chance = np.unique(y, return_counts=True)[1].max() / len(y)
        return max(0.0, float(((named == y).mean() - chance) / (1 - chance)))

    def train(self, seed=0, callbacks=()):
        """The score, 0 where `fit` fails."""
        keras.utils.set_random_seed(seed)
        x, y = self.arrays(training=True)
        model = self.model(x)
        try:
            model.fit(
                x,
                self.targets(y),
                batch_size=self.batch,
                epochs=self.epochs,
                verbose=0,
                callbacks=list(callbacks),
            )
            return self.score(model)
        except Exception as error:  # labels that TensorFlow refuses
            print(f"  {type(error).__name__}")
            return 0.0
        finally:
            keras.backend.clear_session()


class Extra(keras.layers.Layer):
    """Something whose derivative is not finite at 0."""

    def __init__(self, name):
        super().__init__()
        self.what = name

    def call(self, x):
        if self.what == "root":
            return ops.sqrt(ops.relu(x))
        if self.what == "norm":
            zero = 0 * x[:, :1]
            return ops.concatenate([x, ops.sqrt(ops.sum(zero**2, -1, True))], -1)
        if self.what == "division":
            return x / ops.relu(ops.mean(x, axis=-1, keepdims=True) - 1.0)
        return ops.log(ops.relu(x))

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] + (self.what == "norm"))


def _log_penalty(weights):
    return 1e-3 * ops.mean(ops.log(weights))


# -- Families --------------------------------------------------------------------------

BASES = {
    "dev": [
        Program(data.digits, normalized=False),
        Program(data.cancer, depth=1, width=16, optimizer="SGD", rate=0.1),
        Program(data.diabetes, depth=1, width=8, rate=5e-3),
        Program(data.circles, activation="tanh", width=16, rate=1e-2, epochs=20),
        Program(data.digits, "cnn", optimizer="SGD", rate=0.05, momentum=0.9),
        Program(data.waves, "lstm", width=24, rate=1e-2),
        Program(data.words, "words", rate=1e-2),
        Program(data.products, "pair", rate=1e-2),
        Program(data.rings, depth=2, width=64, optimizer="RMSprop", epochs=30),
        Program(data.waves, "rnn", width=24, rate=3e-3),
    ],
    "test": [
        Program(data.wine, depth=1, optimizer="SGD", rate=0.05),
        Program(data.friedman, width=48, rate=5e-3),
        Program(data.moons, depth=3, width=16, optimizer="SGD", rate=0.1, momentum=0.9),
        Program(data.parity, "cnn", depth=2, rate=3e-3),
        Program(data.trends, "gru", width=16, rate=1e-2),
        Program(data.topics, "words", rate=1e-2),
        Program(data.near, "pair", width=24, activation="tanh", rate=1e-2),
        Program(data.blobs, depth=2, width=24, optimizer="AdamW", normalized=True),
        Program(data.visits, depth=1, width=16, rate=5e-3),
        Program(data.trends, "rnn", width=16, rate=3e-3),
    ],
}


def scalable(p):
    return p.body in ("mlp", "cnn", "pair") and not p.normalized


VARIANTS = {
    "as it is": lambda p: p,
    "batches of 8": lambda p: p.replace(batch=8, epochs=p.epochs // 2),
    "twice the rate": lambda p: p.replace(rate=2 * p.rate),
    "a third of the rate": lambda p: p.replace(rate=p.rate / 3, epochs=2 * p.epochs),
    "dropout 0.3, L2": lambda p: p.replace(dropout=0.3, penalty="l2"),
    "inputs × 4": lambda p: (
        p.replace(changes=(("inputs scaled", 4.0),), epochs=2 * p.epochs)
        if scalable(p)
        else p.replace(epochs=2 * p.epochs)
    ),
}
