"""Backend-specific operations, one module per backend.

Each module has a `BACKEND` and its own `Runner`. Shared code uses `keras.ops`; code
outside of this folder does not depend on the backend.
"""

import importlib

import keras

SUPPORTED = ("tensorflow", "jax", "torch")


def load():
    """Returns the `Backend` in use; raises RuntimeError if it is unsupported."""
    backend = keras.config.backend()
    if backend not in SUPPORTED:
        raise RuntimeError(
            f"keras_gradwatch runs on the Keras backends {', '.join(SUPPORTED)}; this "
            f"process runs on {backend!r}. Set the environment variable "
            "KERAS_BACKEND to one of them before Keras is imported."
        )
    return importlib.import_module(f"keras_gradwatch.backends.{backend}").BACKEND
