"""A fingerprint that identifies the state of a run."""

import hashlib
import math

import numpy as np

from keras_gradwatch.keras_hooks import model_state

# Weights that are examined: the smallest ones, mostly biases and scales, and the last.
SMALLEST, LAST = 16, 2
# Elements of the largest one that is read for this: a state is kept every few seconds.
LARGEST = 2**18


def fingerprint(model, access):
    """Hashes the number of updates, all shapes, and some trained weights.

    Returns a str; None if no weights can be read, or no update was made yet.
    """
    updates = model_state.updates(model, access)
    trained = model.trainable_variables
    whole = [v for v in trained if access.is_whole(v)]
    chosen = sorted(whole, key=_size)[:SMALLEST]
    chosen += [v for v in whole[-LAST:] if _size(v) <= LARGEST]
    if not updates or not chosen:
        return None
    digest = hashlib.sha256()
    digest.update(str([updates, [tuple(v.shape) for v in trained]]).encode())
    for variable in chosen:
        digest.update(np.asarray(access.read(variable), "float32").tobytes())
    return digest.hexdigest()


def _size(variable):
    return math.prod(variable.shape)
