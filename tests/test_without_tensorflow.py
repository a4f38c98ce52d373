"""On JAX and PyTorch nothing needs TensorFlow, TensorBoard logs neither."""

import keras
import pytest

from tests import helper

pytestmark = [pytest.mark.jax, pytest.mark.torch]

RUN = """
import runpy, sys
sys.modules["tensorflow"] = None  # an import of it raises
path, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(path, run_name="__main__")
assert not any(name.startswith("tensorflow.") for name in sys.modules)
"""


@pytest.mark.parametrize("name", ["quickstart.py"])
def test_an_example_runs_and_logs(name, tmp_path):
    path = helper.ROOT / "examples" / name
    arguments = "--epochs", "1", "--log-dir", tmp_path
    printed = helper.run_python(
        RUN, path, *arguments, KERAS_BACKEND=keras.config.backend()
    )
    assert f"tensorboard --logdir {tmp_path}" in printed
    files = list(tmp_path.rglob("events.out.tfevents.*"))
    assert files and min(f.stat().st_size for f in files) > 1000
