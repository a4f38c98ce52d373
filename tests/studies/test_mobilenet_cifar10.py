"""The study of a fault in batch 20: what it prints, and how it sums up a gradient."""

import re

import keras
import numpy as np
import pytest

from keras_gradwatch.callbacks import GradientHistory
from tests import helper
from tests.test_examples import event_files, run


@pytest.mark.tensorflow
def test_quick(tmp_path, study):
    printed = run("mobilenet_cifar10.py", tmp_path, "--quick")
    runs = {(r["fault"], r["treatment"]): r for r in helper.tables(printed)[0]}
    stock, three, watched = (
        runs["weights", name] for name in ("stock", "articles", "GradWatch()")
    )
    # 32 · 100 · ln 10, and 140 times as much.
    for found in (stock, three, watched):
        assert 3e3 < float(found["loss in batch 19"]) < 2e4
        assert 4e5 < float(found["in batch 20"]) < 3e6
        assert found["first explosion"] == "20"
    # What the update has done: worse than knowing nothing, but where it was skipped.
    assert float(stock["largest after"]) > 2 * study.GUESS
    assert float(watched["largest after"]) < 1.5 * study.GUESS
    assert re.search(
        r"^- weights: step 20: .*; the update was skipped\.$", printed, re.M
    )
    # The gradient is 140 times as large, give or take what the batches differ by.
    times = re.findall(r"^\| (?:stem|head|blocks \S+) .*\| (\d+) +\|$", printed, re.M)
    assert len(times) == 3 and 30 < np.median([int(t) for t in times]) < 700
    logs = tmp_path / "logs" / "mobilenet_cifar10"
    assert (logs / "mobilenet_cifar10.png").stat().st_size > 10_000
    files = event_files(logs / "weights")
    watched_files = {"train", "validation", "gradwatch"}
    assert {f"GradWatch/{name}" for name in watched_files} <= set(files)
    assert {"stock/train", "stock/validation"} <= set(files)


@pytest.mark.tensorflow
def test_the_gradient_of_a_part_is_that_of_all_its_kernels(study):
    """Against the gradients of a network of linear layers, by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 5)), rng.normal(size=(8, 2))
    keras.utils.set_random_seed(0)
    names = {"conv_dw_1": 4, "conv_pw_2": 3, "conv_preds": 2}
    inner = [keras.layers.Dense(n, use_bias=False, name=k) for k, n in names.items()]
    model = keras.Sequential([keras.Input((5,)), *inner])
    a, b, c = (keras.ops.convert_to_numpy(layer.kernel) for layer in inner)
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
