"""Limits as the compiled step compares with them: in float32."""

import math

import numpy as np

FLOAT32_MAX = float(np.finfo("float32").max)


def to_float32(value):
    """Rounds a float to the nearest float32 number."""
    if abs(value) > FLOAT32_MAX:  # NumPy would warn about the overflow
        return math.copysign(math.inf, value)
    return float(np.float32(value))


def just_below(limit):
    """Returns the largest float32 below `limit`, for `x < limit` as `x <= high`."""
    return float(np.nextafter(np.float32(to_float32(limit)), np.float32(0)))
