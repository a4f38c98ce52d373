"""The study of a fault in batch 20: what it prints, and how it sums up a gradient."""

import importlib
import re

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory
from tests import helper
from tests.test_examples import event_files, run

TREATMENTS = ("stock", "the articles' three", r"GradWatch\(\)")


@pytest.fixture(scope="module")
def study():
    """The example as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "examples")
        yield importlib.import_module("mobilenet_cifar10")


def cells(printed, fault, treatment):
    """The cells of one row, after those that name it."""
    (found,) = re.findall(rf"^\| {fault} +\| {treatment} +\|(.*)\|$", printed, re.M)
    return [cell.strip() for cell in found.split("|")]


@pytest.mark.tensorflow
def test_quick(tmp_path):
    printed = run("mobilenet_cifar10.py", tmp_path, "--quick", "--out", str(tmp_path))
    print(printed)


def test_the_gradient_of_a_part_is_that_of_all_its_kernels(study):
    """Against the gradients of a network of linear layers, by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    keras.utils.set_random_seed(0)
    names = {"conv_dw_1": 4, "conv_pw_2": 3, "conv_preds": 2}
    inner = [keras.layers.Dense(n, use_bias=False, name=k) for k, n in names.items()]
    model = keras.Sequential([keras.Input((5,)), *inner])
    a, b, c = (layer.kernel.numpy() for layer in inner)
    model.compile("sgd", "mse")
    history = GradientHistory()
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[history])

    error = 2 * (x @ a @ b @ c - y) / y.size
    of_a, of_b = x.T @ error @ c.T @ b.T, (x @ a).T @ error @ c.T
    of_c = (x @ a @ b).T @ error
    block = np.concatenate([of_a.ravel(), of_b.ravel()])
    found = study.by_depth(model, history, 0)
    assert list(found) == ["blocks 1–2", "head"]
    expected = [(g.mean(), g.std()) for g in (block, of_c)]
    np.testing.assert_allclose(list(found.values()), expected, 1e-4, 1e-6)
