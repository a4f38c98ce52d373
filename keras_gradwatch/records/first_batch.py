"""Plain numbers that describe the inputs and targets of the first batch."""

import math

import keras
import numpy as np

from keras_gradwatch.tensors.reading import to_numpy

# Rows, inputs and targets, and columns that are examined.
MAX_ROWS, MAX_ARRAYS, MAX_COLUMNS = 256, 8, 4096
# Columns that are listed by number.
LISTED = 5
# Numbers in a batch that is kept until its step was read.
SMALL = 2_000_000


def describe_batch(data):
    """Describes a batch as a dict of plain data; empty if it cannot be read.

    `data` is what `fit` passes to a step: `(x, y)`, `(x, y, sample_weight)`, or `x`, of
    nested NumPy arrays or tensors. The keys are `weighted` (whether there are sample
    weights), `inputs` and `targets`, lists of dicts with `name`, `shape`, `integers`,
    `low`, `high`, `rms` (of the finite values), `nonfinite`, `zeros`, `negative`
    (fractions), `bad_columns` (not finite in any row), `one_hot`, `constant`,
    `deviation` (the standard deviation), `variance_error` (the standard error of its
    square), `rows` (their number), `distinct` (how many the first 256 values are),
    `column` (number and root mean square of the largest one) and `frames` (of whole
    numbers, the steps that the longest label sequence needs under CTC, where 0 is
    padding).
    """
    try:
        x, y, weights = keras.utils.unpack_x_y_sample_weight(data)
        parts = {"inputs": _arrays(x), "targets": _arrays(y)}
        return {**parts, "weighted": weights is not None}
    except Exception:  # ragged, sparse, or a structure of the user's own
        return {}


def is_small(data):
    """Returns whether a batch has so few numbers that it may be kept for a while."""
    shapes = [getattr(leaf, "shape", None) for leaf in keras.tree.flatten(data)]
    try:
        return sum(math.prod(s) for s in shapes if s is not None) <= SMALL
    except (TypeError, ValueError):  # an axis whose length is not known
        return False


def _arrays(nested):
    if nested is None:
        return []
    named = nested.items() if isinstance(nested, dict) else [("", nested)]
    found = []
    for name, part in named:
        for leaf in keras.tree.flatten(part):
            array = _numbers(leaf)
            if array is not None:
                found.append({"name": str(name), **_describe(array)})
    return found[:MAX_ARRAYS]


def _numbers(leaf):
    """Returns the first rows of an array or tensor; None if it has no numbers."""
    if leaf is None or not hasattr(leaf, "shape") or not len(leaf.shape):
        return None
    part = leaf[:MAX_ROWS]
    array = part if isinstance(part, np.ndarray) else to_numpy(part)
    return array if array.dtype.kind in "fiub" and array.size else None


def _frames(rows):
    labels = rows > 0
    repeats = labels[:, 1:] & (rows[:, 1:] == rows[:, :-1])
    return int((labels.sum(axis=1) + repeats.sum(axis=1)).max())


def _describe(array):
    whole = array.dtype.kind in "iub"
    rows = array.reshape(len(array), -1)
    # Of many columns, evenly spaced ones: the first ones may be the border of images.
    apart = -(-rows.shape[1] // MAX_COLUMNS)
    rows = rows[:, ::apart].astype("float64")
    finite = np.isfinite(rows)
    known = rows[finite]
    bad = np.flatnonzero(~finite.any(axis=0))
    some = len(known) > 0
    with np.errstate(over="ignore"):
        rms = float(np.sqrt(np.mean(known**2))) if some else 0.0
        sizes = np.sqrt(np.mean(np.where(finite, rows, 0.0) ** 2, axis=0))
    largest = int(sizes.argmax())
    return {
        "shape": list(array.shape[1:]),
        "integers": bool(whole or (some and (known == np.round(known)).all())),
        "low": float(known.min()) if some else 0.0,
        "high": float(known.max()) if some else 0.0,
        "rms": rms,
        "nonfinite": float(1 - finite.mean()),
        "bad_columns": (bad[:LISTED] * apart).tolist(),
        "zeros": float((rows == 0).mean()),
        "negative": float((rows < 0).mean()),
        "frames": _frames(rows) if whole else 0,
        "one_hot": _is_one_hot(rows),
        "constant": bool(some and known.min() == known.max()),
        "deviation": float(known.std()) if some else 0.0,
        "variance_error": _variance_error(known) if some else 0.0,
        "rows": len(rows),
        "distinct": len(np.unique(known[:MAX_ROWS])),
        "column": [largest * apart, float(sizes[largest])],
    }


def _variance_error(values):
    """Returns the standard error of the variance of `values`."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = (values - values.mean()) ** 2
        error = float(np.std(squares) / math.sqrt(len(values)))
    return error if math.isfinite(error) else 0.0


def _is_one_hot(rows):
    """Returns whether each row has a single 1, and zeros."""
    if rows.shape[1] < 2 or not np.isin(rows, (0, 1)).all():
        return False
    return bool((rows.sum(axis=1) == 1).all())
