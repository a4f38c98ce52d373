"""Data of small training programs, and changes of them, faulty ones and repairs."""

import numpy as np
from sklearn import datasets

ROWS = 600


# -- Data: `(x, y, task)`, inputs of unit size ----------------------------------------


def standard(x):
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-6)


def random_of(seed):
    return np.random.default_rng(seed)


def digits():
    x, y = datasets.load_digits(return_X_y=True)
    return x / 16, y, "classes"


def parity():
    x, y = datasets.load_digits(return_X_y=True)
    return x[ROWS:] / 16, y[ROWS:] % 2, "binary"


def cancer():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return standard(x), y, "binary"


def wine():
    x, y = datasets.load_wine(return_X_y=True)
    return np.tile(standard(x), (4, 1)), np.tile(y, 4), "classes"


def diabetes():
    x, y = datasets.load_diabetes(return_X_y=True)
    return standard(x), standard(y), "regression"


def friedman():
    x, y = datasets.make_friedman1(ROWS, 8, random_state=3)
    return standard(x), standard(y), "regression"


def circles():
    x, y = datasets.make_circles(ROWS, noise=0.08, factor=0.5, random_state=1)
    return standard(x), y, "binary"


def moons():
    x, y = datasets.make_moons(ROWS, noise=0.12, random_state=2)
    return standard(x), y, "binary"


def rings():
    """Five classes, each at a distance from the center: nothing linear."""
    random = random_of(4)
    x = random.normal(size=(ROWS, 4))
    radius = np.linalg.norm(x, axis=1)
    return x, np.searchsorted(np.quantile(radius, [0.25, 0.5, 0.75]), radius), "classes"


def blobs():
    x, y = datasets.make_blobs(ROWS, 6, centers=6, cluster_std=2.5, random_state=5)
    return standard(x), y, "classes"


def waves():
    """Sines of three frequencies, 20 steps."""
    random = random_of(6)
    y = random.integers(0, 3, ROWS)
    phase = random.uniform(0, 6.28, (ROWS, 1))
    x = np.sin(np.arange(20) * (0.3 + 0.35 * y[:, None]) + phase)
    return (x + 0.2 * random.normal(size=x.shape))[..., None], y, "classes"


def trends():
    """The next value of a noisy sine, from the 20 before it."""
    random = random_of(7)
    speed, phase = (
        random.uniform(0.2, 0.8, (ROWS, 1)),
        random.uniform(0, 6.28, (ROWS, 1)),
    )
    x = np.sin(np.arange(21) * speed + phase) * 1.4
    return (
        (x + 0.05 * random.normal(size=x.shape))[:, :20, None],
        x[:, 20],
        "regression",
    )


def words():
    """Whether tokens below 15 of 40 are more than a third of twelve."""
    x = random_of(8).integers(0, 40, (ROWS, 12))
    return x, ((x < 15).sum(axis=1) > 4).astype(int), "binary"


def topics():
    """Which of four topics twelve tokens come from, most of them its own."""
    random = random_of(9)
    y = random.integers(0, 4, ROWS)
    own, any_ = random.integers(0, 10, (ROWS, 12)), random.integers(0, 40, (ROWS, 12))
    x = np.where(random.random((ROWS, 12)) < 0.45, own + 10 * y[:, None], any_)
    return x, y, "classes"


def products():
    """The product of one column of two inputs, and a linear part."""
    a, b = random_of(10).normal(size=(2, ROWS, 3))
    return [a, b], standard(a[:, 0] * b[:, 0] + a[:, 1] - b[:, 2]), "regression"


def near():
    """Whether two points are near each other."""
    a, b = random_of(11).normal(size=(2, ROWS, 2))
    return [a, b], (np.linalg.norm(a - b, axis=1) < 1.7).astype(int), "binary"


def visits():
    random = random_of(12)
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
    "targets standard": lambda x, y, *_: (x, standard(y)),
}


def _filled(part):
    if isinstance(part, list):
        return [_filled(p) for p in part]
    return np.nan_to_num(part, nan=0.0, posinf=0.0, neginf=0.0)
