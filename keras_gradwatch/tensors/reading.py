"""Reading variables on the host."""

import numpy as np
from keras import ops


def read(variable):
    """Returns the value of a variable as a new NumPy array.

    A copy, as a backend may return the variable's own memory; by way of a tensor, as
    NumPy warns about Keras variables on some backends.
    """
    return np.array(to_numpy(ops.convert_to_tensor(variable)))


def to_numpy(tensor):
    """Converts a tensor or an array to NumPy."""
    if hasattr(tensor, "detach") and "bfloat16" not in str(tensor.dtype):
        # PyTorch: NumPy 2 warns of what Keras calls, and has no float8.
        tensor = tensor.detach().cpu()
        return (tensor.float() if "float8" in str(tensor.dtype) else tensor).numpy()
    return ops.convert_to_numpy(tensor)
