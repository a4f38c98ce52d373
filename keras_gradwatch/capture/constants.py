"""Constants that are on the accelerator already (PyTorch)."""

import functools

import numpy as np
import torch
from torch.overrides import TorchFunctionMode


class Constants(TorchFunctionMode):
    """Context in which a number or an array becomes a tensor once, and no second time.

    Copying a number from the host to an accelerator waits for everything that the
    accelerator has to do before. A step of this package has hundreds of numbers in it,
    the same ones in every step. What is made of them must not be written to.

    Attributes:
        paused: True while code runs that may write to them.
    """

    paused = False

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.as_tensor and len(args) == 1 and not self.paused:
            value = args[0]
            if isinstance(value, bool | int | float):
                return _of_number(type(value), value, **kwargs)
            if isinstance(value, np.ndarray) and value.dtype != object:
                key = (value.tobytes(), value.dtype.str, value.shape)
                return _of_array(*key, **kwargs)
        return function(*args, **kwargs)


@functools.lru_cache(maxsize=4096)
def _of_number(kind, value, **kwargs):
    # The kind is a part of the key: True, 1 and 1.0 are equal.
    return torch.as_tensor(kind(value), **kwargs)


@functools.lru_cache(maxsize=4096)
def _of_array(data, kind, shape, **kwargs):
    array = np.frombuffer(data, kind).reshape(shape).copy()
    return torch.as_tensor(array, **kwargs)
