"""Small training programs, and faults that are injected into healthy ones.

A `Program` is data, architecture and settings, all plain values: a fault is an edit of
it, and so is a repair. The families of `"dev"` and of `"test"` have no data in common,
and their faults differ in size; rules may be tuned on `"dev"` alone.
"""

import dataclasses
import functools
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers, ops
from sklearn import datasets

ROWS = 600


# -- Data: `(x, y, task)`, inputs of unit size ----------------------------------------


def _standard(x):
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def _random(seed):
    return np.random.default_rng(seed)


def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return x / 16, y, "classes"


def parity():
    x, y = datasets.load_digits(return_X_y=True)
    return x[ROWS:] / 16, y[ROWS:] % 2, "binary"


def cancer():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _standard(x), y, "binary"


def wine():
    x, y = datasets.load_wine(return_X_y=True)
    return np.tile(_standard(x), (4, 1)), np.tile(y, 4), "classes"


def diabetes():
    x, y = datasets.load_diabetes(return_X_y=True)
    return _standard(x), _standard(y), "regression"


def friedman():
    x, y = datasets.make_friedman1(ROWS, 8, random_state=3)
    return _standard(x), _standard(y), "regression"


def circles():
    x, y = datasets.make_circles(ROWS, noise=0.08, factor=0.5, random_state=1)
    return _standard(x), y, "binary"


def moons():
    x, y = datasets.make_moons(ROWS, noise=0.12, random_state=2)
    return _standard(x), y, "binary"


def rings():
    """Five classes, each at a distance from the center: nothing linear."""
    random = _random(4)
    x = random.normal(size=(ROWS, 4))
    radius = np.linalg.norm(x, axis=1)
    return x, np.searchsorted(np.quantile(radius, [0.25, 0.5, 0.75]), radius), "classes"


def blobs():
    x, y = datasets.make_blobs(ROWS, 6, centers=6, cluster_std=2.5, random_state=5)
    return _standard(x), y, "classes"


def waves():
    """Sines of three frequencies, 20 steps."""
    random = _random(6)
    y = random.integers(0, 3, ROWS)
    phase = random.uniform(0, 6.28, (ROWS, 1))
    x = np.sin(np.arange(20) * (0.3 + 0.35 * y[:, None]) + phase)
    return (x + 0.2 * random.normal(size=x.shape))[..., None], y, "classes"


def trends():
    """The next value of a noisy sine, from the 20 before it."""
    random = _random(7)
    speed, phase = random.uniform(0.2, 0.8, (ROWS, 1)), random.uniform(0, 6.28, (ROWS, 1))
    x = np.sin(np.arange(21) * speed + phase) * 1.4
    return (x + 0.05 * random.normal(size=x.shape))[:, :20, None], x[:, 20], "regression"


def words():
    """Whether tokens below 15 of 40 are more than a third of twelve."""
    x = _random(8).integers(0, 40, (ROWS, 12))
    return x, ((x < 15).sum(axis=1) > 4).astype(int), "binary"


def topics():
    """Which of four topics twelve tokens come from, most of them its own."""
    random = _random(9)
    y = random.integers(0, 4, ROWS)
    own, any_ = random.integers(0, 10, (ROWS, 12)), random.integers(0, 40, (ROWS, 12))
    x = np.where(random.random((ROWS, 12)) < 0.45, own + 10 * y[:, None], any_)
    return x, y, "classes"


def products():
    """The product of one column of two inputs, and a linear part."""
    a, b = _random(10).normal(size=(2, ROWS, 3))
    return [a, b], _standard(a[:, 0] * b[:, 0] + a[:, 1] - b[:, 2]), "regression"


def near():
    """Whether two points are near each other."""
    a, b = _random(11).normal(size=(2, ROWS, 2))
    return [a, b], (np.linalg.norm(a - b, axis=1) < 1.7).astype(int), "binary"


def visits():
    random = _random(12)
    x = random.normal(size=(ROWS, 5))
    return x, random.poisson(np.exp(0.9 * x[:, 0] - 0.7 * x[:, 1] + 0.8)), "counts"


# -- Changes of the data: `(x, y, size, training)` to `(x, y)` ------------------------


def _columns(change):
    """A change of a copy of the inputs, of the first where there are several."""

    def changed(x, y, size, training):
        first, *rest = x if isinstance(x, list) else [x]
        first = np.array(first, "float64")
        change(first, size, training)
        return ([first, *rest] if rest else first), y

    return changed


def _scaled(x, size, training):
    x *= size


def _shifted(x, size, training):
    x += size


def _huge_column(x, size, training):
    x[..., x.std(axis=0).argmax()] *= size


def _nan_column(x, size, training):
    x[..., int(size)] = np.nan


def _nan_rows(x, size, training):
    if training:
        x[:: int(size)] = np.nan


def _infinite(x, size, training):
    if training:
        x[int(size), ..., 0] = np.inf


def _constant(x, size, training):
    x[:] = size


CHANGES = {
    "inputs scaled": _columns(_scaled),
    "inputs shifted": _columns(_shifted),
    "huge column": _columns(_huge_column),
    "NaN column": _columns(_nan_column),
    "NaN rows": _columns(_nan_rows),
    "infinite value": _columns(_infinite),
    "constant inputs": _columns(_constant),
    "targets scaled": lambda x, y, size, _: (x, size * y + 3 * size),
    "targets with zeros": lambda x, y, size, _: (x, np.where(y < 0, 0, y)),
    "labels shifted": lambda x, y, size, _: (x, y + int(size)),
    "labels ±1": lambda x, y, size, _: (x, 2 * y - 1),
    "constant targets": lambda x, y, size, t: (x, 0 * y + size if t else y),
    "NaN targets": lambda x, y, size, t: (
        x,
        np.where(np.arange(len(y)) % int(size) == 0, np.nan, y) if t else y,
    ),
    # Repairs.
    "filled": lambda x, y, *_: (_filled(x), _filled(y)),
    "classes from 0": lambda x, y, *_: (x, np.unique(y, return_inverse=True)[1]),
    "targets standard": lambda x, y, *_: (x, _standard(y)),
}


def _filled(part):
    if isinstance(part, list):
        return [_filled(p) for p in part]
    return np.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0)


# -- Programs --------------------------------------------------------------------------

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
        order = _random(0).permutation(len(y))[:ROWS]
        rows = order[: len(order) * 4 // 5] if training else order[len(order) * 4 // 5 :]
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
        model = keras.Model(inputs, outputs)
        if self.frozen:
            for layer in model.layers[:-1] if self.frozen == "all but last" else [model]:
                layer.trainable = False
        config = {"learning_rate": self.rate}
        if self.momentum:
            config["momentum"] = self.momentum
        optimizer = {"class_name": self.optimizer, "config": config}
        loss = keras.losses.get(self._loss())
        if self.from_logits:
            loss = {
                "binary_crossentropy": keras.losses.BinaryCrossentropy,
                "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
            }[self._loss()](from_logits=True)
        else:
            loss = self._loss()
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
                h = layers.Conv2D(
                    8, 3, activation=self.activation, **self._weights()
                )(h)
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
        """Of the held-out rows: R², or accuracy above chance as a share of the rest."""
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
        Program(digits, normalized=False),
        Program(cancer, depth=1, width=16, optimizer="SGD", rate=0.1),
        Program(diabetes, depth=1, width=8, rate=5e-3),
        Program(circles, activation="tanh", width=16, rate=1e-2, epochs=20),
        Program(digits, "cnn", optimizer="SGD", rate=0.05, momentum=0.9),
        Program(waves, "lstm", width=24, rate=1e-2),
        Program(words, "words", rate=1e-2),
        Program(products, "pair", rate=1e-2),
        Program(rings, depth=2, width=64, optimizer="RMSprop", epochs=30),
        Program(waves, "rnn", width=24, rate=3e-3),
    ],
    "test": [
        Program(wine, depth=1, optimizer="SGD", rate=0.05),
        Program(friedman, width=48, rate=5e-3),
        Program(moons, depth=3, width=16, optimizer="SGD", rate=0.1, momentum=0.9),
        Program(parity, "cnn", depth=2, rate=3e-3),
        Program(trends, "gru", width=16, rate=1e-2),
        Program(topics, "words", rate=1e-2),
        Program(near, "pair", width=24, activation="tanh", rate=1e-2),
        Program(blobs, depth=2, width=24, optimizer="AdamW", normalized=True),
        Program(visits, depth=1, width=16, rate=5e-3),
        Program(trends, "rnn", width=16, rate=3e-3),
    ],
}


@dataclass(frozen=True)
class Fault:
    """What is wrong, and what a report must say of it.

    Attributes:
        label: What kind of fault it is.
        name: What it is.
        fits: Predicate of a program that it can be injected into.
        inject: Function of a program and a size to the faulty one.
        sizes: How large it is in `"dev"` and in `"test"`.
        cause: Pattern of a cause that names it.
        fix: Pattern of an advice that repairs it.
    """

    label: str
    name: str
    fits: object
    inject: object
    cause: str
    fix: str
    sizes: tuple = (None, None)


def _edit(**edits):
    return lambda program, size: program.replace(
        **{key: size if value is SIZE else value for key, value in edits.items()}
    )


def _change(name):
    return lambda program, size: program.replace(
        changes=(*program.changes, (name, size))
    )


SIZE = object()
DENSE = ("mlp", "pair", "words")


def _task(*tasks, bodies=()):
    return lambda p: p.task in tasks and (not bodies or p.body in bodies)


def _body(*bodies):
    return lambda p: p.body in bodies


def _scalable(p):
    return p.body in ("mlp", "cnn", "pair") and not p.normalized


def _nonlinear(p):
    """Programs that a linear model cannot learn."""
    return p.data in (circles, rings, products, moons, near, visits)


def _rate(program, size):
    """A rate that is `size` times as high; Adam divides by the gradient's size."""
    adaptive = program.optimizer != "SGD"
    return program.replace(rate=program.rate * (size if adaptive else 10 * size))


def _deep(program, size):
    activation, depth = size
    init = ("glorot_uniform", ())
    return program.replace(
        activation=activation, depth=depth, width=16, init=init, normalized=False
    )


def _float16(program, size):
    changed = _change("targets scaled")(program, size)
    return changed.replace(dtype="float16")


SETTINGS = r"last layer|`dense"
FAULTS = [
    Fault("explosion", "rate too high", lambda p: True, _rate,
          r"rate.* is too high", r"Lower the learning rate", (100, 200)),
    Fault("explosion", "initial weights of N(0, s)", _body("mlp", "cnn", "pair"),
          lambda p, s: p.replace(init=("RandomNormal", (("stddev", s),)), depth=p.depth + 3,
                                 width=64, normalized=False),
          r"weights of .* were large", r"he_normal", (1.0, 0.7)),
    Fault("explosion", "recurrent gain", _body("rnn"),
          _edit(recurrent_gain=SIZE), r"weights of .* were large",
          r"orthogonal", (2.0, 2.5)),
    Fault("last layer", "softmax over one unit", _task("binary"), _edit(last="softmax"),
          "softmax over one unit", "sigmoid"),
    Fault("last layer", "softmax over one unit, MSE", _task("regression"),
          _edit(last="softmax"), "softmax over one unit|softmax, and", "[Rr]emove the activation"),
    Fault("last layer", "relu before crossentropy", _task("classes"), _edit(last="relu"),
          "activation relu", "softmax|from_logits"),
    Fault("last layer", "no softmax", _task("classes"), _edit(last="linear"),
          "no softmax", "from_logits=True|softmax"),
    Fault("last layer", "no sigmoid", _task("binary"), _edit(last="linear"),
          "no sigmoid", "from_logits=True|sigmoid"),
    Fault("last layer", "tanh before crossentropy", _task("binary"), _edit(last="tanh"),
          "activation tanh", "sigmoid"),
    Fault("last layer", "relu before binary crossentropy", _task("binary"),
          _edit(last="relu"), "activation relu", "sigmoid"),
    Fault("last layer", "MSE for class numbers", _task("classes"),
          _edit(loss="mse", units=1, last="linear"),
          "class|label", "[Cc]rossentropy"),
    Fault("last layer", "sigmoid and MSE for class numbers", _task("classes"),
          _edit(loss="mse", units=1, last="sigmoid"),
          "class|label|activation sigmoid", "[Cc]rossentropy|Remove the activation"),
    Fault("last layer", "softmax twice", _task("classes"), _edit(from_logits=True),
          "applies another one", "Remove the activation|from_logits"),
    Fault("last layer", "sigmoid for a regression", _task("regression"),
          _edit(last="sigmoid"), "activation sigmoid", "Remove the activation"),
    Fault("last layer", "relu for a regression", _task("regression"), _edit(last="relu"),
          "activation relu", "Remove the activation"),
    Fault("last layer", "tanh for large targets", _task("regression"),
          lambda p, s: _change("targets scaled")(p, s).replace(last="tanh"),
          "activation tanh|targets are large", "Remove the activation|Scale the targets", (3.0, 5.0)),
    Fault("last layer", "MAPE with zeros", _task("regression"),
          lambda p, s: _change("targets with zeros")(p, s).replace(loss="mape"),
          "divides by them", "mean_absolute_error"),
    Fault("last layer", "logarithm of negatives", _task("regression"),
          _edit(loss=SIZE), "logarithm|no negative ones|from 0 on", "softplus|mse",
          ("msle", "poisson")),
    Fault("inputs", "inputs × s", _scalable, _change("inputs scaled"),
          "inputs are large|inputs.* large", "Scale the inputs", (255.0, 1000.0)),
    Fault("inputs", "inputs × large s", _scalable, _change("inputs scaled"),
          "inputs are large|inputs.* large", "Scale the inputs", (1e4, 5e4)),
    Fault("inputs", "one huge column", lambda p: _scalable(p) and p.body != "cnn",
          _change("huge column"), "inputs.* large|column 0 of the inputs",
          "Scale the inputs", (5e4, 5e5)),
    Fault("inputs", "inputs far from 0", _scalable, _change("inputs shifted"),
          "inputs.* large|inputs.* far from 0", "Scale the inputs", (200.0, 500.0)),
    Fault("targets", "targets × s", _task("regression"), _change("targets scaled"),
          "targets.* large", "Scale the targets", (100.0, 1000.0)),
    Fault("labels", "labels from 1", _task("classes"), _change("labels shifted"),
          "labels are from", "Number the classes from 0", (1, 1)),
    Fault("labels", "labels -1 and 1", _task("binary"), _change("labels ±1"),
          "targets are from -1", "Encode the labels"),
    Fault("data", "a column is NaN", _body("mlp", "pair", "lstm", "gru"),
          _change("NaN column"), "of the inputs.* NaN|inputs.* not finite",
          "Remove or fill", (0, 0)),
    Fault("data", "rows are NaN", _body("mlp", "cnn", "pair"), _change("NaN rows"),
          "inputs.* not finite|values that are not finite", "Remove or fill|isfinite", (60, 100)),
    Fault("data", "one infinite value", _body("mlp", "cnn", "pair"),
          _change("infinite value"), "inputs.* not finite|values that are not finite",
          "Remove or fill|isfinite", (7, 200)),
    Fault("data", "targets are NaN", _task("regression", "counts"), _change("NaN targets"),
          "targets.* not finite|values that are not finite", "Remove or fill|isfinite",
          (10, 7)),
    Fault("data", "all inputs equal", _body("mlp", "cnn", "lstm", "gru"),
          _change("constant inputs"), "all inputs", "how the inputs are made", (0.0, 1.0)),
    Fault("data", "all targets equal", _task("classes", "binary", "regression"),
          _change("constant targets"), "all targets", "how the targets are made", (1, 0)),
    Fault("slow", "rate too low", lambda p: True,
          lambda p, s: p.replace(rate=p.rate * s), "rate of .* too low|rate is too low",
          "Raise the learning rate", (1e-3, 3e-4)),
    Fault("slow", "too few epochs", lambda p: True, _edit(epochs=SIZE),
          "still falling|too low", "epochs|Raise the learning rate", (2, 1)),
    Fault("slow", "momentum .999", lambda p: p.body in ("mlp", "cnn", "pair"),
          lambda p, s: p.replace(optimizer="SGD", momentum=s, rate=0.05),
          "momentum of", "momentum", (0.999, 0.995)),
    Fault("slow", "negative rate", lambda p: True,
          lambda p, s: p.replace(rate=-p.rate), "rate is negative",
          "Compile with a learning rate of"),
    Fault("slow", "dropout", lambda p: True, _edit(dropout=SIZE),
          "dropout", "dropout of at most", (0.9, 0.95)),
    Fault("structure", "no hidden layer", lambda p: _nonlinear(p) and p.task != "counts",
          _edit(depth=0, normalized=False), "no hidden layer|linear", "hidden layer"),
    Fault("structure", "one unit", lambda p: p.task == "classes" and p.body in DENSE,
          _edit(width=1, depth=1), "units?.*(few|single|bottleneck|narrow)|narrow", "units"),
    Fault("structure", "no activation", lambda p: _nonlinear(p) and p.task != "counts",
          _edit(activation="linear"), "without an activation", "activation"),
    Fault("structure", "everything frozen", lambda p: True, _edit(frozen=True),
          "frozen|trainable", "trainable"),
    Fault("vanishing", "many saturating layers", _body("mlp"), _deep,
          "layers use `(sigmoid|tanh)`|weights .* small|shrink", "relu|he_normal|normalization|residual",
          (("sigmoid", 10), ("sigmoid", 12))),
    Fault("vanishing", "small weights, many layers", _body("mlp"),
          lambda p, s: p.replace(init=("RandomNormal", (("stddev", s),)), depth=8, width=16,
                                 normalized=False),
          "weights .* small|shrink", "he_normal|normalization", (0.02, 0.05)),
    Fault("dead", "negative biases", _body("mlp", "cnn"),
          lambda p, s: p.replace(bias=s, activation="relu", normalized=False),
          "bias", "bias|LeakyReLU|normalization", (-10.0, -20.0)),
    Fault("undefined", "square root at 0", lambda p: p.body in ("mlp", "pair") and not p.normalized,
          _edit(extra="root", activation="relu"), "derivative is infinite|square root", "square root|small constant"),
    Fault("undefined", "norm at 0", lambda p: p.body != "rnn",
          _edit(extra="norm"), "derivative is infinite|square root", "square root|small constant"),
    Fault("undefined", "division by 0", lambda p: p.body in ("mlp", "words"),
          _edit(extra="division", activation="relu"),
          "divi", "divi"),
    Fault("undefined", "logarithm in a regularizer", _body(*DENSE), _edit(penalty="log"),
          "logarithm|regularizer", "logarithm|regularizer"),
    Fault("float16", "a loss beyond float16", _task("regression"), _float16,
          "float16|targets are large", "float32|Scale the targets", (300.0, 500.0)),
]

# What a report may call each fault; a cause that is named as a symptom is right, too.
EXPLODED = {
    "explosion",
    "explosion at the first step",
    "non-finite at the start",
    "sudden non-finite loss",
}
STUCK = {"not learning", "learns poorly", "no gradient", "dead units", "vanishing"}
SYMPTOMS = {
    # A protected run with such weights or rates may only stay poor.
    "explosion": EXPLODED | {"dead units", "not learning", "learns poorly"},
    "last layer": STUCK | EXPLODED,
    "inputs": EXPLODED | STUCK | {"large first loss", "oscillation"},
    "targets": EXPLODED | STUCK | {"large first loss"},
    "labels": STUCK | EXPLODED,
    "data": EXPLODED | {"bad batches", "no gradient", "not learning", "learns poorly"},
    "slow": STUCK | EXPLODED,
    "structure": STUCK,
    "vanishing": {"vanishing", "not learning"},
    "dead": {"dead units", "no gradient"},
    "undefined": {"undefined derivative", "non-finite loss", "non-finite at the start", "sudden non-finite loss", "bad batches"},
    "float16": {"float16 overflow", *EXPLODED},
}
# Programs into which each fault is injected, and of each healthy program.
EACH = 3


def faulty(families):
    """Pairs of a `Fault` and the programs, healthy and faulty, `(base, program)`."""
    which = ("dev", "test").index(families)
    found, bases = [], BASES[families]
    for index, fault in enumerate(FAULTS):
        start = index % len(bases)
        fitting = [p for p in bases[start:] + bases[:start] if fault.fits(p)]
        for base in fitting[:EACH]:
            found.append((fault, base, fault.inject(base, fault.sizes[which])))
    return found


VARIANTS = {
    "as it is": lambda p: p,
    "another seed": lambda p: p,
    "batches of 8": lambda p: p.replace(batch=8, epochs=p.epochs // 2),
    "twice the rate": lambda p: p.replace(rate=2 * p.rate),
    "a third of the rate": lambda p: p.replace(rate=p.rate / 3, epochs=2 * p.epochs),
    "dropout 0.3, L2": lambda p: p.replace(dropout=0.3, penalty="l2"),
    "inputs × 4": lambda p: (
        p.replace(changes=(("inputs scaled", 4.0),), epochs=2 * p.epochs)
        if _scalable(p)
        else p.replace(epochs=2 * p.epochs)
    ),
}


def healthy(families):
    """Triples of what is different, the program, and a seed."""
    return [
        (name, variant(base), 1 if name == "another seed" else 0)
        for base in BASES[families]
        for name, variant in VARIANTS.items()
    ]
