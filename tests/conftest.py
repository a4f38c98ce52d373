"""What must be set before a backend makes its first tensor, and what is shared.

Which tests are left out is decided here, too: what is about another backend, and where
steps are traced what is `thorough`.
"""

import gc

import keras

BACKEND = keras.config.backend()
BACKENDS = {"tensorflow", "jax", "torch"}

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

# They cannot be imported without TensorFlow, and are about nothing else.
if BACKEND != "tensorflow":
    collect_ignore = [
        "regimes/test_clipping.py",
        "regimes/test_matrix.py",
        "regimes/test_replicas.py",
        "regressions/test_facts_of_fit.py",
        "regressions/test_facts_of_replicas.py",
        "regressions/test_keras_facts.py",
        "test_benchmarks.py",
        "test_cost_benchmarks.py",
    ]
# Each model takes seconds to compile there. Left out is what the host does with steps
# that were recorded, the same on every backend, and what is there beside the code.
if BACKEND == "jax":
    collect_ignore += [
        "callbacks/test_clipping.py",
        "callbacks/test_contract.py",
        "callbacks/test_history.py",
        "callbacks/test_tensorboard.py",
        "callbacks/test_with_keras.py",
        "dashboard",
        "detectors/test_lasting.py",
        "keras_own",
        "regimes/test_resume.py",
        "reports",
        "tensorboard",
        "test_examples.py",
        "test_memory.py",
        "test_package.py",
        "test_saving.py",
        "train_step/test_idle.py",  # backends/test_jax.py has what is JAX's own of it
    ]

# What the imports made stays: the garbage collector need not look at it at each step,
# and a step that is traced makes objects by the ten thousand.
gc.freeze()
gc.set_threshold(100_000, 20, 50)


def runs_here(item):
    """Whether a test is for the backend in use: its markers name those it is for."""
    if "strategy" in item.fixturenames:
        return BACKEND == "tensorflow"
    named = BACKENDS & {marker.name for marker in item.iter_markers()}
    return BACKEND in (named or BACKENDS)


def pytest_collection_modifyitems(config, items):
    asked_for = "thorough" in config.getoption("markexpr")
    everything = BACKEND == "torch" or asked_for

    def is_kept(item):
        wanted = everything or not item.get_closest_marker("thorough")
        return wanted and runs_here(item)

    config.hook.pytest_deselected(items=[i for i in items if not is_kept(i)])
    items[:] = [i for i in items if is_kept(i)]


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
