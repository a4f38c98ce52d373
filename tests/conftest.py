"""What must be set before a backend makes its first tensor, and what is shared."""

import gc

import keras

BACKEND = keras.config.backend()

if BACKEND == "tensorflow":
    import tensorflow as tf

    # Two replicas, also on a machine with one device.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    # It folds anew what has one more reader: without it, runs are equal bit for bit.
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})

import pytest  # noqa: E402

from tests import helper  # noqa: E402

# What the imports made stays: the garbage collector need not look at it at each step.
gc.freeze()


def pytest_collection_modifyitems(items):
    """Leaves out what is about another backend."""
    others = {"tensorflow", "jax", "torch"} - {BACKEND}
    for item in items:
        if others & {mark.name for mark in item.iter_markers()}:
            item.add_marker(pytest.mark.skip(reason="about another backend"))


@pytest.fixture(scope="module", autouse=True)
def forget_graphs():
    """Each file of tests begins without the graphs of those before it."""
    yield
    helper.forget_graphs()


@pytest.fixture(scope="session")
def strategy():
    """The one `MirroredStrategy` of this process: they share collective keys."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


@pytest.fixture(scope="session")
def digits():
    """`(x, y)`: 96 handwritten digits, float32 [96, 64] from 0 to 1, and classes."""
    return helper.digits(96)
