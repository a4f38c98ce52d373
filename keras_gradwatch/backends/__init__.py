"""The seam between a model's own training step and the monitor: one file a backend.

A backend's module gives what its `__all__` names, and has a `Runner` of its own. What
is the same everywhere is written once, with `keras.ops`; outside of this folder nothing
knows which backend it runs on.
"""

import importlib

import keras

SUPPORTED = ("tensorflow", "jax", "torch")


def load():
    """Returns the module of the Keras backend in use.

    Raises:
        RuntimeError: If this backend is not supported.
    """
    backend = keras.config.backend()
    if backend not in SUPPORTED:
        raise RuntimeError(
            f"keras_gradwatch runs on the Keras backends {', '.join(SUPPORTED)}; this "
            f"process runs on {backend!r}. Set the environment variable "
            "KERAS_BACKEND to one of them before Keras is imported."
        )
    return importlib.import_module(f"keras_gradwatch.backends.{backend}")
