"""The seam between a model's own training step and the monitor: one file a backend.

A backend's module gives `check`, `check_strategy`, `create_variable`, `cut_rates`,
`harmed`, `host`, `release`, `run_step`, `updates` and `write_row`; nothing else in the
package knows which backend it runs on.
"""

import importlib

import keras

SUPPORTED = ("tensorflow",)


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
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
    return importlib.import_module(f"keras_gradwatch.capture.{backend}")
