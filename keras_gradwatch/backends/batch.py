"""The newest batches, kept on the host until it is known whether they are bad."""

import math
from collections import deque

import keras
import numpy as np
from keras import ops

from keras_gradwatch.records.names import unique
from keras_gradwatch.tensors.reading import to_numpy

# Number of batches kept: on a busy device, an event becomes known some steps later.
NEWEST = 8


class RecentBatches:
    """Keeps references to the newest batches (JAX and PyTorch).

    `take` rejects batches over the limit, or with anything but dense arrays of numbers.
    """

    def __init__(self, monitor):
        self._monitor = monitor
        self._kept = deque(maxlen=NEWEST)  # pairs of a step and its batch

    def note(self, step, data):
        """Keeps the batch of `step`."""
        self._kept.append((step, data))

    def noting(self, iterator, step):
        """Yields and keeps the batches of an iterator, starting with that of `step`."""
        for number, data in enumerate(iterator, step):
            self.note(number, data)
            yield data

    def take(self, step):
        """Returns `(batch, None)` of a step, a dict of arrays, or `(None, reason)`."""
        data = dict(self._kept).get(step)
        if data is None:
            return None, f"only the newest {NEWEST} are kept; reduce `update_freq`"
        items = flat(data)
        why_not = unsupported(items)
        if why_not is not None:
            return None, why_not
        size, limit = sum(map(_bytes, items)), self._monitor.plan.save_batch
        if size > limit:
            return None, too_large(size, limit)
        names = unique(name for name, _ in items)
        return dict(zip(names, (to_numpy(i) for _, i in items), strict=True)), None


def too_large(size, limit):
    """Explains why a batch over the limit is not kept; sizes are in bytes."""
    return f"it has {size:.0f} bytes, more than `save_batch={limit:.0f}`"


def unsupported(items):
    """Explains why a batch, flattened by `flat`, cannot be kept; None if it can."""
    for name, item in items:
        if not ops.is_tensor(item) and not isinstance(item, np.ndarray):
            kind = type(item).__name__
            return f"batches with a {kind} (at `{name}`) are not saved"
    return None


def flat(data, name=""):
    """Flattens a nested batch into `(name, leaf)` pairs (`0`, `1`, `0/image`)."""
    if isinstance(data, dict):
        parts = data.items()
    elif isinstance(data, tuple | list):
        parts = enumerate(data)
    else:
        return [] if data is None else [(name or "batch", data)]
    prefix = f"{name}/" if name else ""
    return [item for key, part in parts for item in flat(part, f"{prefix}{key}")]


def nested(batch):
    """Restores a nested batch from the dict of name to array that `take` returns."""
    if list(batch) == ["batch"]:
        return batch["batch"]
    parts = {}
    for name, array in batch.items():
        first, _, rest = name.partition("/")
        parts.setdefault(first, {})[rest or "batch"] = array
    parts = {name: nested(part) for name, part in parts.items()}
    numbered = list(parts) == [str(number) for number in range(len(parts))]
    return tuple(parts.values()) if numbered else parts


def _bytes(item):
    dtype = keras.backend.standardize_dtype(item[1].dtype)
    return math.prod(item[1].shape) * np.dtype(dtype).itemsize
