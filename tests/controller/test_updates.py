"""Updates that the host measures between two steps."""

import keras
import numpy as np

import keras_gradwatch


def test_an_update_out_of_range_is_infinite_without_a_warning():
    """The square of a norm of 2.2e19 is beyond float32; warnings are errors here."""
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    keras_gradwatch.watch(model)
    access = model.gradwatch.store.access
    kernel = model.layers[0].kernel
    before = access.device_copies([kernel])
    kernel.assign(np.full((5, 1), 1e19, "float32"))
    norms, moved = access.update_norms(before, [kernel])
    assert np.isfinite(norms).all() and moved[0] > 1e19
