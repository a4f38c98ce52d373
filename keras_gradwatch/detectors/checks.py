"""Checks of what the methods of a detector return, which may be a user's own."""

import math
from numbers import Integral, Real

import numpy as np

from keras_gradwatch.detectors.observation import QUANTITIES, Verdict
from keras_gradwatch.detectors.rounding import to_float32


def checked_limits(detector, state):
    """Returns `detector.limits(state)`, rounded to float32 for the compiled step.

    Raises TypeError if it is no dict, ValueError for a bad entry or a failed method.
    """
    limits = _call(detector, "limits", state)
    expected = (
        f"{type(detector).__name__}.limits() must return a dict of "
        f"{', '.join(QUANTITIES[:-1])} or {QUANTITIES[-1]} to a pair (low, high) with "
        "low <= high, neither of them NaN"
    )
    if not isinstance(limits, dict):
        raise TypeError(f"{expected}. Received: {limits!r}")
    checked = {}
    for name, pair in limits.items():
        is_pair = isinstance(pair, tuple | list) and len(pair) == 2
        if name not in QUANTITIES or not is_pair or not all(map(_is_number, pair)):
            raise ValueError(f"{expected}. Received: {limits!r}")
        low, high = map(float, pair)
        if not low <= high:
            raise ValueError(f"{expected}. Received: {limits!r}")
        checked[name] = to_float32(low), to_float32(high)
    return checked


def checked_observe(detector, step, state):
    """Returns `detector.observe(step, state)`, with a bool made a `Verdict` or None.

    Raises TypeError for another type, ValueError for a bad index or a failed method.
    """
    answer = _call(detector, "observe", step, state)
    if answer is None:
        return None
    if isinstance(answer, bool | np.bool_):
        value = (step.crossed() or (None, math.nan))[1]
        return Verdict(None, value, math.nan) if answer else None
    expected = f"{type(detector).__name__}.observe() must return"
    if not isinstance(answer, Verdict) or not all(map(_is_number, answer[1:])):
        raise TypeError(
            f"{expected} a Verdict of two numbers, True or False, or None. "
            f"Received: {answer!r}"
        )
    variable, value, baseline = answer
    if variable is not None:
        count = len(step.norms)
        if not isinstance(variable, Integral) or not 0 <= variable < count:
            raise ValueError(
                f"{expected} a Verdict whose variable is None or an index below "
                f"{count}. Received: {answer!r}"
            )
        variable = int(variable)
    return Verdict(variable, float(value), float(baseline))


def _call(detector, method, *arguments):
    try:
        return getattr(detector, method)(*arguments)
    except Exception as error:
        raise ValueError(
            f"{type(detector).__name__}.{method}() failed with "
            f"{type(error).__name__}: {error}"
        ) from error


def _is_number(value):
    return isinstance(value, Real) and not isinstance(value, bool)
