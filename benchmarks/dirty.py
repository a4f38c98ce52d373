"""Dirty data: what is left of the score when some rows of the training data are bad.

Each run has a fraction of bad rows of one kind, at random places. It is trained with
stock Keras, with `SkipOnExplosion()` and with `GradWatch()`. The reference is stock
Keras on the same data without the bad rows. Scores are accuracies on clean held-out
digits; the page shows means over the seeds, as fractions of the reference.

Of two kinds, whole batches are bad: those in which every row is masked, and empty ones.
Their loss is the mean over the rows that count, as people write it: 0 / 0.

    [KERAS_BACKEND=jax] python benchmarks/dirty.py [--seeds 21 22 23]
        [--shares 0.001 0.01 0.1] [--out docs/benchmarks]

It takes about 40 minutes on one core.
"""

import argparse
import pathlib
import sys

import keras
import numpy as np
import timing
from keras import ops
from sklearn import datasets

from keras_gradwatch.callbacks import GradWatch, SkipOnExplosion

EPOCHS, BATCH_SIZE = 12, 32
OPTIMIZERS = {
    "sgd": ("SGD .1, momentum .9", lambda: keras.optimizers.SGD(0.1, momentum=0.9)),
    "adam": ("Adam .003", lambda: keras.optimizers.Adam(0.003)),
}
METHODS = {
    "stock": list,
    "SkipOnExplosion": lambda: [SkipOnExplosion(verbose=0)],
    "GradWatch": lambda: [GradWatch(verbose=0)],
}


def nan(x, y, bad, random):
    x[bad, 0] = np.nan


def infinite(x, y, bad, random):
    x[bad, 0] = np.inf


def huge(x, y, bad, random):
    x[bad] *= 1e6


def wrong(x, y, bad, random):
    y[bad] = random.permutation(y[bad])


def masked(x, y):
    """A batch in which no row counts."""
    return x, np.full_like(y, -1)


def empty(x, y):
    """A batch without rows."""
    return x[:0], y[:0]


KINDS = {
    "nan": ("NaN in one input", nan),
    "infinite": ("infinity in one input", infinite),
    "huge": ("inputs × 10⁶", huge),
    "wrong": ("labels at random", wrong),
}
# Kinds of which whole batches are bad.
BATCH_KINDS = {
    "masked": ("all rows masked", masked),
    "empty": ("empty batches", empty),
}
TITLES = {kind: title for kind, (title, _) in {**KINDS, **BATCH_KINDS}.items()}


class Batches(keras.utils.PyDataset):
    """Batches of `BATCH_SIZE` rows in random order, some of them bad.

    Args:
        x: Inputs [N, 64].
        y: Labels [N].
        bad: Number of bad batches, in addition.
        spoil: Function `(x, y)` that makes a bad batch of a good one.
        seed: Of the order.
    """

    def __init__(self, x, y, bad, spoil, seed):
        super().__init__()
        self._x, self._y, self._spoil = x, y, spoil
        self._random = np.random.RandomState(seed)
        self._bad = [True] * bad + [False] * (len(x) // BATCH_SIZE)
        self.on_epoch_end()

    def __len__(self):
        return len(self._bad)

    def __getitem__(self, index):
        rows = self._rows[sum(~np.array(self._bad[:index], bool)) * BATCH_SIZE :]
        rows = rows[:BATCH_SIZE] if len(rows) >= BATCH_SIZE else self._rows[:BATCH_SIZE]
        batch = self._x[rows], self._y[rows]
        return self._spoil(*batch) if self._bad[index] else batch

    def on_epoch_end(self):
        """Draws the order of the next epoch."""
        self._rows = self._random.permutation(len(self._x))
        self._random.shuffle(self._bad)


def masked_mean(labels, logits):
    """The mean crossentropy of the rows whose label is not -1."""
    labels = ops.reshape(labels, (-1,))
    counts = ops.cast(labels >= 0, "float32")
    losses = keras.losses.sparse_categorical_crossentropy(
        ops.maximum(labels, 0), logits, from_logits=True
    )
    return ops.sum(counts * losses) / ops.sum(counts)


def split():
    """`(x, y), (x, y)`: for training and for tests."""
    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype("float32")
    order = np.random.RandomState(77).permutation(len(x))
    test, train = np.split(order, [len(x) // 4])
    return (x[train], y[train]), (x[test], y[test])


def run(data, loss, optimizer, method, seed):
    """`(accuracy on clean data, fraction of the learning rate that is left)`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    dense = keras.layers.Dense
    hidden = [dense(64, "relu"), dense(64, "relu")]
    model = keras.Sequential([keras.Input((64,)), *hidden, dense(10)])
    model.compile(OPTIMIZERS[optimizer][1](), loss)
    rate = float(model.optimizer.learning_rate)
    options = {"verbose": 0, "callbacks": METHODS[method](), "epochs": EPOCHS}
    if isinstance(data, tuple):
        model.fit(*data, BATCH_SIZE, **options)
    else:
        model.fit(data, **options)
    _, (held_out, labels) = split()
    found = model.predict(held_out, verbose=0)
    score = float((found.argmax(1) == labels).mean())
    return score, float(model.optimizer.learning_rate) / rate


def datasets_of(kind, share, seed):
    """`(clean data, bad data, loss)`, the data as functions without arguments."""
    (x, y), _ = split()
    if kind in BATCH_KINDS:
        bad = max(1, round(share * (len(x) // BATCH_SIZE)))
        spoil = BATCH_KINDS[kind][1]
        return *(
            lambda bad=bad: Batches(x, y, bad, spoil, seed) for bad in (0, bad)
        ), masked_mean
    random = np.random.RandomState(seed)
    bad = random.random(len(x)) < share
    if not bad.any():
        bad[random.randint(len(x))] = True
    clean = x[~bad], y[~bad]
    KINDS[kind][1](x, y, bad, random)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return lambda: clean, lambda: (x, y), loss


def measure(kind, share, optimizer, seeds):
    """The reference's accuracies, and by method pairs of accuracy and rate."""
    reference, found = [], {method: [] for method in METHODS}
    for seed in seeds:
        clean, bad, loss = datasets_of(kind, share, seed)
        reference.append(run(clean(), loss, optimizer, "stock", seed)[0])
        for method in METHODS:
            found[method].append(run(bad(), loss, optimizer, method, seed))
    return reference, found


def page(rows, seeds, given):
    """The lines of the page."""
    head = ["bad rows", "kind", "optimizer", "reference"]
    head += [*METHODS, "learning rate left, GradWatch"]
    title = "# Dirty data"
    if timing.BACKEND != "tensorflow":
        title += f" on {timing.TITLES[timing.BACKEND]}"
    lines = [title, ""]
    lines += [
        "Accuracy on clean held-out digits, relative to stock Keras on the same data",
        f"without the bad rows; means over {len(seeds)} seeds. Batches have",
        f"{BATCH_SIZE} rows, so 1% of bad rows affects one batch in four, and 10%",
        "nearly every batch. Masked and empty batches have a loss of 0 / 0; for them,",
        "the percentage counts batches, at least one per epoch. The last column is the",
        "smallest fraction of the learning rate that remains at the end under",
        "`GradWatch()`.",
        "",
    ]
    cells, worst = [], {}
    for (share, kind, optimizer), (reference, found) in rows.items():
        base = float(np.mean(reference))
        scores = {m: np.mean([s for s, _ in v]) / base for m, v in found.items()}
        left = min(rate for _, rate in found["GradWatch"])
        cells.append(
            [f"{share:.1%}", TITLES[kind], OPTIMIZERS[optimizer][0], f"{base:.3f}"]
            + [f"{scores[m]:.3f}" for m in METHODS]
            + [f"{left:.3g}"]
        )
        less = scores["GradWatch"] - scores["SkipOnExplosion"]
        worst.setdefault(share, []).append((scores["GradWatch"], less))
    lines += timing.table(head, cells)
    lines.append("")
    for share, found in worst.items():
        least = min(score for score, _ in found)
        less = min(0.0, *(d for _, d in found)) if found else 0.0
        lines.append(
            f"- {share:.1%} bad rows: `GradWatch()` reaches at least {least:.3f} of "
            f"the reference, and is at most {abs(less):.3f} below `SkipOnExplosion()`."
        )
    return [*lines, "", "Measured by", "", f"    {timing.command('dirty.py', given)}"]


def main(given=None):
    """Measures, and prints the page; `--out` writes it, too."""
    given = sys.argv[1:] if given is None else given
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--seeds", nargs="+", type=int, default=[21, 22, 23])
    add("--shares", nargs="+", type=float, default=[0.001, 0.01, 0.1])
    add("--kinds", nargs="+", choices=TITLES, default=list(TITLES))
    add("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    add("--out", type=pathlib.Path, help="folder for dirty.md")
    arguments = parser.parse_args(given)
    rows = {}
    for share in arguments.shares:
        for kind in arguments.kinds:
            for optimizer in arguments.optimizers:
                key = share, kind, optimizer
                rows[key] = measure(kind, share, optimizer, arguments.seeds)
                print(*key, rows[key], flush=True)
    lines = page(rows, arguments.seeds, given)
    timing.write(arguments.out, timing.file_stem("dirty"), lines)


if __name__ == "__main__":
    main()
