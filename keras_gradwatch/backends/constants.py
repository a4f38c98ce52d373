"""Constants that are already on the accelerator (PyTorch)."""

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

MOST = 4096  # constants that are kept
SMALL = 4096  # largest number of elements of a constant: a batch is not one

_made: dict = {}  # what is asked for -> the tensor


class Constants(TorchFunctionMode):
    """Context that converts each number or small array to a tensor only once.

    Copying a number from the host to an accelerator waits for all work queued there,
    and a step uses hundreds of numbers, the same ones each time. The tensors must not
    be written to: set `paused` while code runs that may do so.
    """

    paused = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = None
        if function is torch.as_tensor and len(args) == 1 and not self.paused:
            known = _key(args[0])
        if known is None:
            return function(*args, **kwargs)
        key = known, tuple(kwargs.items())
        if key not in _made:
            if len(_made) >= MOST:
                _made.clear()
            _made[key] = function(*args, **kwargs)
        return _made[key]


def _key(value):
    """Returns a key that identifies a constant; None for other values."""
    if isinstance(value, bool | int | float):
        return type(value), repr(value)  # by its text: NaN is not equal to NaN
    if isinstance(value, np.ndarray) and value.dtype != object and value.size <= SMALL:
        return value.tobytes(), value.dtype.str, value.shape
    if isinstance(value, list | tuple):
        keys = tuple(map(_key, value))
        return None if None in keys else (type(value), keys)
    return None
