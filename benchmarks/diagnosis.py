"""Does the report name what is wrong? The families of runs of AutoTrainer (ICSE 2021).

Each run is made twice from the same seed: by stock Keras, judged by AutoTrainer's own
rules (NumPy on the gradients that `tf.GradientTape` gives of the first batch, at the
begin and after each epoch) and by its final accuracy; and with `GradWatch()`, whose
report is asked what it names. A run is named right if the first symptom of the report
is one that AutoTrainer's rules find, or if neither finds any.

    python benchmarks/diagnosis.py [--seeds 0 1] [--only TEXT] [--out docs/benchmarks]
"""

import argparse
import pathlib
from collections import Counter
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits, make_blobs, make_circles
from sklearn.preprocessing import MinMaxScaler

from keras_gradwatch.callbacks import GradWatch
from keras_gradwatch.reports.diagnosis import causes, symptoms

# What AutoTrainer calls it, by what the report calls it.
NAMES = {
    "non-finite at the start": {"exploding"},
    "explosion": {"exploding"},
    "explosion at the first step": {"exploding"},
    "sudden non-finite loss": {"exploding"},
    "undefined derivative": {"exploding"},
    "no gradient": {"dying relu"},
    "dead units": {"dying relu"},
    "vanishing": {"vanishing"},
    "not learning": {"not learning"},
}


def circles():
    """AutoTrainer's Circle: `(x, y, classes)`."""
    x, y = make_circles(1000, noise=0.1, random_state=1)
    return MinMaxScaler((-1, 1)).fit_transform(x), y, 2


def blobs():
    """AutoTrainer's Blob, unscaled."""
    x, y = make_blobs(1000, 2, centers=3, cluster_std=2, random_state=2)
    return x, y, 3


def digits():
    """scikit-learn's digits from 0 to 1, in place of MNIST."""
    x, y = load_digits(return_X_y=True)
    return x / 16, y, 10


def raw_digits():
    """The same from 0 to 16."""
    x, y = load_digits(return_X_y=True)
    return x, y, 10


@dataclass(frozen=True)
class Family:
    """A stack of Dense layers, and how it is trained."""

    data: object
    depth: int
    width: int
    activation: str
    init: object
    optimizer: str
    rate: float
    batch: int = 32
    epochs: int = 8

    def __str__(self):
        stack = f"{self.depth}×{self.width} {self.activation} {_init_name(self.init)}"
        training = f"{self.optimizer} {self.rate:g}, batch {self.batch}"
        return f"{self.data.__name__}, {stack}, {training}"

    def make(self, seed):
        """`(model, x, y)`; the same for the same seed."""
        keras.utils.set_random_seed(seed)
        x, y, classes = self.data()
        x, y = x.astype("float32"), y.astype("int32")
        model = keras.Sequential([keras.Input(x.shape[1:])])
        for _ in range(self.depth):
            # An initializer object gives the same weights each time it is asked.
            init = self.init if isinstance(self.init, str) else self.init.clone()
            model.add(
                layers.Dense(self.width, self.activation, kernel_initializer=init)
            )
        model.add(layers.Dense(classes))
        optimizer = keras.optimizers.get(
            {"class_name": self.optimizer, "config": {"learning_rate": self.rate}}
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss, metrics=["accuracy"])
        return model, x, y


def _init_name(init):
    if isinstance(init, str):
        return init
    config = init.get_config()
    if "stddev" in config:
        return f"N(0, {config['stddev']:g})"
    return f"U(±{config['maxval']:g})"


UNIT = keras.initializers.RandomNormal(0.0, 1.0)
TINY = keras.initializers.RandomUniform(-0.05, 0.05)
FAMILIES = [
    Family(circles, 8, 5, "sigmoid", "he_uniform", "Adam", 1e-3, 128, 20),
    Family(circles, 11, 5, "sigmoid", "he_uniform", "Adam", 1e-3),
    Family(circles, 13, 5, "sigmoid", "he_uniform", "SGD", 0.01),
    Family(blobs, 11, 5, "sigmoid", "he_uniform", "SGD", 0.01),
    Family(digits, 10, 120, "sigmoid", "he_normal", "SGD", 0.1),
    Family(circles, 8, 5, "relu", TINY, "Adam", 1e-3, 128, 20),
    Family(blobs, 8, 5, "relu", TINY, "Adam", 1e-3, 128, 20),
    Family(circles, 8, 5, "exponential", "he_uniform", "SGD", 0.01, 32, 3),
    Family(blobs, 8, 5, "exponential", "he_uniform", "SGD", 0.01, 32, 3),
    Family(digits, 10, 64, "tanh", UNIT, "SGD", 0.1),
    Family(digits, 10, 64, "relu", UNIT, "SGD", 0.01),
    Family(raw_digits, 3, 64, "relu", "he_normal", "SGD", 0.1),
    Family(digits, 2, 64, "relu", "he_normal", "Adam", 1.0),
    Family(digits, 34, 128, "relu", "glorot_uniform", "Adam", 1e-3),
    Family(digits, 20, 128, "relu", "he_uniform", "Adam", 1e-3),
    Family(circles, 15, 5, "relu", "he_uniform", "Adam", 1e-3, 32, 20),
    Family(circles, 17, 5, "relu", "he_uniform", "Adam", 1e-3, 32, 20),
    Family(circles, 5, 5, "tanh", "glorot_uniform", "Adam", 0.01),
    Family(circles, 17, 5, "tanh", "glorot_uniform", "Adam", 1e-3),
    Family(blobs, 5, 5, "tanh", "glorot_uniform", "SGD", 0.01),
    Family(digits, 12, 128, "relu", "he_normal", "Adam", 1e-3),
    Family(digits, 1, 64, "relu", "glorot_uniform", "SGD", 0.1),
]


@dataclass
class AutoTrainer(keras.callbacks.Callback):
    """AutoTrainer's rules, on gradients of the first batch.

    Constants of its `demo.py`: β₁ = 1e-3, β₂ = 1e-4, β₃ = 70, γ = 0.7, Θ = 0.6,
    δ = 0.01. It asks for the signs in gradients only where a run does not converge.
    """

    x: np.ndarray
    y: np.ndarray
    chance: float
    signs: set = field(default_factory=set)
    accuracy: list = field(default_factory=list)

    def __post_init__(self):
        super().__init__()

    def on_train_begin(self, logs=None):
        """Looks at the gradients before the first update."""
        self._look()

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the gradients after each epoch."""
        self.accuracy.append(logs["accuracy"])
        if not np.isfinite(logs["loss"]) or logs["loss"] >= 1e5:
            self.signs.add("non-finite")
        self._look()

    def _look(self):
        with tf.GradientTape() as tape:
            loss = self.model.compute_loss(self.x, self.y, self.model(self.x))
        found = tape.gradient(loss, self.model.trainable_variables)
        gradients = [g.numpy() for g in found]
        if not all(np.isfinite(g).all() for g in gradients):
            self.signs.add("non-finite")
            return
        zeros = sum((g == 0).sum() for g in gradients) / sum(g.size for g in gradients)
        norms = [np.linalg.norm(g) for g in gradients if g.ndim > 1]
        if zeros >= 0.7:
            self.signs.add("dying relu")
        if norms[-1] > 0 and norms[0] / norms[-1] > 70:
            self.signs.add("exploding")
        if norms[0] < 1e-3 * norms[-1] and norms[0] < 1e-4:
            self.signs.add("vanishing")

    def verdict(self):
        """What AutoTrainer calls this run: a set, empty for a healthy one."""
        if "non-finite" in self.signs:
            return {"exploding"} | self.signs - {"non-finite"}
        gains = np.diff(self.accuracy)
        converges = max(self.accuracy) >= 0.6 and gains.max(initial=0) >= 0.01
        if converges:
            return set()
        learned = (self.accuracy[-1] - self.chance) / (1 - self.chance) > 0.1
        return set(self.signs) or (set() if learned else {"not learning"})


def run(family, seed):
    """AutoTrainer's verdict, accuracies, kinds of symptoms and causes, `GradWatch`."""
    model, x, y = family.make(seed)
    chance = np.bincount(y).max() / len(y)
    rules = AutoTrainer(x[: family.batch], y[: family.batch], chance)
    options = {"batch_size": family.batch, "epochs": family.epochs, "verbose": 0}
    model.fit(x, y, callbacks=[rules], **options)
    keras.backend.clear_session()
    model, x, y = family.make(seed)
    watch = GradWatch(verbose=0)
    protected = model.fit(x, y, callbacks=[watch], **options).history["accuracy"][-1]
    keras.backend.clear_session()
    found = symptoms(watch.summary)
    why = [cause.kind for cause in causes(watch.summary, found)]
    kinds = [symptom.kind for symptom in found]
    return rules.verdict(), rules.accuracy[-1], protected, kinds, why, watch


def grade(expected, kinds, stock, protected):
    """`"right"`, `"prevented"` or `"no"`.

    Right is a first symptom that is expected, or none where none is. Prevented is what
    is expected and did not come about: an explosion is named, and the accuracy is
    better than stock Keras's by half.
    """
    if bool(NAMES.get(kinds[0], set()) & expected) if kinds else not expected:
        return "right"
    exploded = bool(kinds) and kinds[0] == "explosion"
    return "prevented" if exploded and protected > stock + 0.5 else "no"


def main():
    """Runs all families and prints the table; `--out` writes it, too."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", default="", help="part of a family's name")
    parser.add_argument("--reports", action="store_true", help="print the reports")
    parser.add_argument("--out", type=pathlib.Path, help="folder for diagnosis.md")
    arguments = parser.parse_args()
    lines = [
        "| family | seed | accuracy: stock, GradWatch | AutoTrainer's rules | "
        "the report names | why | |",
        "|---|---|---|---|---|---|---|",
    ]
    grades = Counter()
    for family in FAMILIES:
        if arguments.only not in str(family):
            continue
        for seed in arguments.seeds:
            expected, stock, protected, kinds, why, watch = run(family, seed)
            how = grade(expected, kinds, stock, protected)
            grades[how] += 1
            lines.append(
                f"| {family} | {seed} | {stock:.2f}, {protected:.2f} | "
                f"{_join(sorted(expected))} | {_join(kinds)} | {', '.join(why)} | "
                f"{how} |"
            )
            print(lines[-1], flush=True)
            if arguments.reports:
                print(watch.report(), flush=True)
    seeds = " ".join(map(str, arguments.seeds))
    summed = f"Of {grades.total()} runs: " + ", ".join(
        f"{count} {how}" for how, count in grades.most_common()
    )
    page = "\n".join(
        [
            "# Does the report name what is wrong?",
            "",
            "Stacks of Dense layers with the faults of AutoTrainer (Zhang et al., ICSE "
            "2021), and healthy ones.",
            "Expected is what AutoTrainer's own rules find in the run of stock Keras, "
            "measured with NumPy and",
            "`tf.GradientTape` beside this package; `not learning` is an accuracy "
            "within a tenth of chance. The report",
            "is that of `GradWatch()` on the same seed, which protects the run: so it "
            "names an explosion that it",
            "prevented, and the accuracy differs. Right: the first symptom that it "
            "names is one of those expected,",
            "or both are healthy. Prevented: what is expected did not come about, the "
            "accuracy is better by half.",
            "",
            f"    python benchmarks/diagnosis.py --seeds {seeds}",
            "",
            f"{summed}.",
            "",
            *lines,
            "",
        ]
    )
    print(summed)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "diagnosis.md").write_text(page, encoding="utf-8")


def _join(names):
    return ", ".join(names) or "healthy"


if __name__ == "__main__":
    main()
