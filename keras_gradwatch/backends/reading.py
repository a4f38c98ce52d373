"""Reading variables on the host."""

import numpy as np
from keras import ops


def read(variable):
    """The value of a variable, a NumPy array of its own.

    A copy, since what a backend gives may be the variable's own memory; by way of a
    tensor, since NumPy warns of Keras's variables on some backends.
    """
    return np.array(ops.convert_to_numpy(ops.convert_to_tensor(variable)))
