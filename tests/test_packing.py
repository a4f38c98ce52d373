"""Several values in one variable."""

import keras
import numpy as np
import pytest

from keras_gradwatch.controller.packing import Packed, pack_values, unpack_values

pytestmark = [pytest.mark.tensorflow, pytest.mark.jax, pytest.mark.torch]

SCALARS = {"a/x": 1.0, "a/y": 2.0, "b": 3.0}
MIXED = {"a/x": [1.0, 2.0], "a/y": 3.0, "m": [[4.0, 5.0], [6.0, 7.0]], "none": []}


@pytest.mark.parametrize("values", [SCALARS, MIXED], ids=["scalars", "mixed"])
def test_there_and_back(values):
    like = {name: np.asarray(value, "float32") for name, value in values.items()}
    variable = keras.Variable(pack_values(like), trainable=False)
    packed = Packed(variable, like)
    for name, value in like.items():
        np.testing.assert_array_equal(np.asarray(packed[name]), value)
    assert list(packed.part("a")) == ["x", "y"]
    packed.put("a/y", packed["a/y"] * 10)
    np.testing.assert_array_equal(np.asarray(packed.part("a")["y"]), like["a/y"])
    latest = packed.part("a", latest=True)["y"]
    np.testing.assert_array_equal(np.asarray(latest), like["a/y"] * 10)
    packed.write()
    back = unpack_values(np.asarray(variable.numpy()), like)
    for name, value in {**like, "a/y": like["a/y"] * 10}.items():
        np.testing.assert_array_equal(back[name], value)
