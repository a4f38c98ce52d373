"""The common base of detectors and policies: settings, declared state, a config."""

import math
import os

import numpy as np


class Method:
    """Base of `Detector` and `Policy`.

    A method is a pure rule. It declares its state in `initial_state` and its numeric
    options in `settings`; changing either causes no retracing.

    Attributes:
        settings: Dict of name to float, the numeric options of the rule.
        reads_details: True if the rule reads statistics other than `norm` and
            `nonfinite_count`. They are then measured at every step; otherwise they are
            sampled, and NaN in between.
    """

    settings: dict = {}  # noqa: RUF012 (replaced by each constructor)
    reads_details = False

    def initial_state(self, num_variables):
        """The state before the first step.

        Args:
            num_variables: V, the number of trainable variables.

        Returns:
            Dict of name to float32 NumPy array.
        """
        return {}

    def get_config(self):
        """The constructor's arguments, for `keras.saving`."""
        return dict(self.settings)

    @classmethod
    def from_config(cls, config):
        """The method that `get_config` described."""
        return cls(**config)

    def structure(self):
        """What of this method is compiled into the step: all but its `settings`.

        Derived from the configuration: an option that is not a setting is a constant
        of the compiled step, and another value of it needs another trace.
        """
        options = [name for name in self.get_config() if name not in self.settings]
        parts = tuple((name, _frozen(getattr(self, name))) for name in options)
        return (type(self).__module__, type(self).__qualname__, parts)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(self.structure())

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def _frozen(value):
    """A hashable value that identifies an option."""
    if isinstance(value, Method):
        return value.structure()
    if isinstance(value, list | tuple):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return tuple((key, _frozen(item)) for key, item in value.items())
    return value if isinstance(value, str | int | float | None) else repr(value)


def number(owner, name, value, *, above=None, at_least=None, below=None):
    """Checks one numeric argument and returns it as a float.

    Args:
        owner: The object whose constructor was called, for the message.
        name: The argument's name.
        value: The received value.
        above: Exclusive lower bound.
        at_least: Inclusive lower bound.
        below: Exclusive upper bound.

    Returns:
        `value` as a float.

    Raises:
        ValueError: If `value` is not a finite number within the bounds.
    """
    bounds = [
        f"> {above}" if above is not None else "",
        f">= {at_least}" if at_least is not None else "",
        f"< {below}" if below is not None else "",
    ]
    allowed = " and ".join(b for b in bounds if b) or "finite"
    is_number = isinstance(value, int | float | np.number) and not isinstance(
        value, bool
    )
    if (
        not is_number
        or not math.isfinite(value)
        or (above is not None and not value > above)
        or (at_least is not None and not value >= at_least)
        or (below is not None and not value < below)
    ):
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be a finite number {allowed}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def whole(owner, name, value, *, at_least=0):
    """Checks one integer argument and returns it as an int.

    Args:
        owner: The object whose constructor was called, for the message.
        name: The argument's name.
        value: The received value.
        at_least: Inclusive lower bound.

    Returns:
        `value` as an int.

    Raises:
        ValueError: If `value` is not an integer, or too small.
    """
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be an integer >= {at_least}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def frequency(owner, value):
    """Checks an argument `update_freq`.

    Args:
        owner: The object whose constructor was called, for the message.
        value: The received value.

    Returns:
        Number of steps, an int; None for `"epoch"`.

    Raises:
        ValueError: If `value` is not an integer >= 1, `"batch"` or `"epoch"`.
    """
    if isinstance(value, str) and value in ("batch", "epoch"):
        return 1 if value == "batch" else None
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < 1:
        raise ValueError(
            f"{type(owner).__name__}: `update_freq` must be an integer >= 1, "
            f'"batch" or "epoch". Received: update_freq={value!r}'
        )
    return int(value)


def local_path(owner, name, value, kind="directory"):
    """Checks one argument that is the path of a local directory, or file.

    Args:
        owner: The object whose constructor was called, for the message.
        name: The argument's name.
        value: The received value.
        kind: What it is the path of, for the message.

    Returns:
        `value` as a str.

    Raises:
        ValueError: If `value` is not such a path.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else ""
    if not isinstance(path, str) or not path or "://" in path:
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be the path of a local {kind}. "
            f"Received: {name}={value!r}"
        )
    return path


def flag(owner, name, value):
    """Checks one argument that is True or False, and returns it.

    Args:
        owner: The object whose constructor was called, for the message.
        name: The argument's name.
        value: The received value.

    Raises:
        ValueError: If `value` is not a bool.
    """
    if not isinstance(value, bool):
        raise ValueError(
            f"{type(owner).__name__}: `{name}` must be True or False. "
            f"Received: {name}={value!r}"
        )
    return value
