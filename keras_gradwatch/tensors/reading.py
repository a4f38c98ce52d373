"""Reading variables on the host."""

import numpy as np
from keras import ops


def read(variable):
    """The value of a variable, a NumPy array of its own.

    A copy, since what a backend gives may be the variable's own memory; by way of a
    tensor, since NumPy warns of Keras's variables on some backends.
    """
    return np.array(to_numpy(ops.convert_to_tensor(variable)))


def to_numpy(tensor):
    """A tensor, or an array, as a NumPy array."""
    if hasattr(tensor, "detach") and "bfloat16" not in str(tensor.dtype):
        # PyTorch: NumPy 2 warns of what Keras calls, and has no float8.
        tensor = tensor.detach().cpu()
        return (tensor.float() if "float8" in str(tensor.dtype) else tensor).numpy()
    return ops.convert_to_numpy(tensor)
