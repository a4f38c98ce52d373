"""The study of exploding and vanishing gradients in a residual network."""

import dataclasses

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory
from tests import helper
from tests.test_examples import event_files, run


@pytest.mark.tensorflow
def test_quick(tmp_path, study):
    printed = run("resnet50_mnist.py", tmp_path, "--quick")
    found = {(r["rate"], r["treatment"]): r for r in helper.tables(printed)[0]}
    usual, stock = found["usual", "stock"], found["exploding", "stock"]
    watched = found["exploding", "GradWatch()"]
    assert usual.keys() == set(study.HEAD)
    assert float(usual["accuracy, mean"]) > 0.8
    # Its gradients have vanished where it has exploded; those of the watched have not.
    # Whether the watched run ends above half is chaotic at 100 times the usual rate.
    assert stock["survived"] == "0 of 1"
    assert float(stock["first kernel at the end"]) < 1e-3
    assert float(watched["first kernel at the end"]) > 0.01
    logs = tmp_path / "logs" / "resnet50_mnist"
    assert (logs / "resnet50_mnist.png").stat().st_size > 10_000
    assert min(event_files(logs).values()) > 1000


@pytest.mark.tensorflow
def test_the_thin_network_is_built_like_resnet_50(study):
    """With its blocks and its width, it has the kernels of the one in Keras."""
    whole = dataclasses.replace(study.SHIPPED, blocks=(3, 4, 6, 3), width=64)
    shapes = []
    for model in (study.network(study.WHOLE), study.network(whole)):
        kernels = [v for v in model.trainable_variables if v.path.endswith("kernel")]
        shapes.append(sorted(tuple(kernel.shape) for kernel in kernels))
    assert shapes[0] == shapes[1] and len(shapes[0]) == 54


@pytest.mark.tensorflow
def test_norms_by_depth(study):
    """Against the gradients of a network of linear layers, by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    keras.utils.set_random_seed(0)
    names = {"conv1_conv": 4, "conv2_block1_0_conv": 3, "predictions": 2}
    inner = [keras.layers.Dense(n, use_bias=False, name=k) for k, n in names.items()]
    model = keras.Sequential([keras.Input((5,)), *inner])
    a, b, c = (keras.ops.convert_to_numpy(layer.kernel) for layer in inner)
    model.compile("sgd", "mse")
    history = GradientHistory()
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[history])

    error = 2 * (x @ a @ b @ c - y) / y.size
    gradients = x.T @ error @ c.T @ b.T, (x @ a @ b).T @ error
    expected = [np.linalg.norm(g) for g in gradients]
    np.testing.assert_allclose(study.norms_by_depth(history), [expected], 1e-4)
    ratio = expected[0] / expected[1]
    np.testing.assert_allclose(study.first_to_last(history), [ratio], 1e-4)
