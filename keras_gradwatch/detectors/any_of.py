"""Several detectors as one."""

from collections.abc import Iterable

import keras

from keras_gradwatch.detectors.base import Detector, flatten


@keras.saving.register_keras_serializable("keras_gradwatch")
class AnyOf(Detector):
    """Trips when any of its detectors trips; each keeps its own kind and state.

    Args:
        detectors: List of `Detector`. `a | b` is short for `AnyOf([a, b])`.

    Raises:
        ValueError: If the list is empty.
        TypeError: If an element is not a detector.

    Example:

    ```python
    detector = detectors.NormThreshold(100.0) | detectors.LossSpike()
    ```
    """

    kind = "any"

    def __init__(self, detectors: Iterable[Detector]) -> None:
        if not detectors:
            raise ValueError(
                "AnyOf: `detectors` must contain at least one detector. "
                f"Received: detectors={detectors!r}"
            )
        self.detectors = [single for d in detectors for single in flatten(d)]

    def get_config(self):
        return {"detectors": keras.saving.serialize_keras_object(self.detectors)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["detectors"]))


def _either(self, other):
    """`a | b` is short for `AnyOf([a, b])`."""
    return AnyOf([self, other])


# Assigned here, because the base class cannot import its own subclass.
Detector.__or__ = _either  # type: ignore
