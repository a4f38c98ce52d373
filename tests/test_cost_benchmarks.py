"""The benchmarks of time, logs and memory: what they measure, and that they run."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gradwatch.callbacks import GradientHistory
from keras_gradwatch.tensors.reading import read
from tests import helper

NAMES = ("models", "overhead", "rivals", "timing", "tracing")


@pytest.fixture(scope="module")
def benchmark():
    """The modules of the benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "benchmarks")
        yield types.SimpleNamespace(**{n: importlib.import_module(n) for n in NAMES})
        for name in NAMES:
            del sys.modules[name]


def run(name, folder, *arguments):
    """Runs a benchmark as its docstring says, and returns the page it wrote."""
    env = {
        **os.environ,
        "PYTHONPATH": str(helper.ROOT),
        "PYTHONIOENCODING": "utf-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    script = str(helper.ROOT / "benchmarks" / f"{name}.py")
    done = subprocess.run(
        [sys.executable, script, *arguments, "--out", str(folder)],
        env=env,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    page = (folder / f"{name}.md").read_text(encoding="utf-8")
    assert f"    python benchmarks/{name}.py {' '.join(arguments)}\n" in page
    assert str(folder) not in page
    return page


def numbers(page, title):
    """The cells of the last row that begins with `title`."""
    row = re.findall(rf"^\| {re.escape(title)} \| (.*) \|$", page, re.MULTILINE)[-1]
    return row.split(" | ")


# -- Each runs -------------------------------------------------------------------------


BENCHMARKS = sorted((helper.ROOT / "benchmarks").glob("*.py"))


def test_every_benchmark_can_be_imported(monkeypatch):
    monkeypatch.syspath_prepend(helper.ROOT / "benchmarks")
    for path in BENCHMARKS:
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
        importlib.import_module(path.stem)
    for path in BENCHMARKS:
        monkeypatch.delitem(sys.modules, path.stem)


@pytest.mark.thorough
def test_overhead(tmp_path):
    arguments = "--models mlp --variants gradwatch hand_written --rounds 1 --steps 4"
    page = run("overhead", tmp_path, *arguments.split())
    assert "8 variables, 150,794 parameters. " in page
    assert numbers(page, "stock")[1] == "1.000"
    assert float(numbers(page, "`GradWatch(log_dir)`")[0]) > 0
    assert (tmp_path / "overhead.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_dirty(tmp_path):
    arguments = "--seeds 3 --shares 0.02 --kinds nan --optimizers adam"
    page = run("dirty", tmp_path, *arguments.split())
    kind, optimizer, reference, stock, skip, ours, rate = numbers(page, "2.0%")
    assert (kind, optimizer) == ("NaN in one input", "Adam .003")
    assert float(reference) > 0.9 and float(stock) < 0.2
    assert float(skip) > 0.95 and float(ours) > 0.95 and float(rate) == 1


@pytest.mark.thorough
def test_recipes(tmp_path):
    page = run("recipes", tmp_path, "--seeds", "3", "--only", "linear_scaled")
    row = numbers(page, "linear regression, scaled targets, SGD .01")
    stock, error, ours, events, steps, skipped, held, rate = row
    assert stock == ours and float(stock) > 0.4 and float(error) == 0
    assert (events, steps, skipped, held, rate) == ("0", "440", "0", "0", "1")
    assert "**1 of 1** recipes had no event" in page


@pytest.mark.thorough
def test_tracing(tmp_path):
    arguments = "--models mlp --variants clipping --rounds 1"
    page = run("tracing", tmp_path, *arguments.split())
    title = "MLP 3×256, batch 128"
    stock, control, clipping = re.findall(rf"^\| {title} \| .* \|$", page, re.M)
    assert re.search(r"\| stock \| \d+\.\d\d \| 1\.00 \|  \|  \|  \|$", stock)
    assert "| control: stock again |" in control
    assert float(clipping.split(" | ")[2]) > 0
    kept = json.loads((tmp_path / "tracing.json").read_text(encoding="utf-8"))
    seconds = kept["tensorflow"][title]["seconds"]
    assert {name: len(s) for name, s in seconds.items()} == {
        "stock": 1,
        "control": 1,
        "clipping": 1,
    }


@pytest.mark.thorough
def test_scaling(tmp_path):
    arguments = "--parameters 2e4 --variables 3 --rounds 1 --steps 4"
    page = run("scaling", tmp_path, *arguments.split())
    for row in ("20,000", "3"):
        assert float(numbers(page, row)[0]) > 0 and numbers(page, row)[-1] == "0"
    assert float(numbers(page, "norms of all gradients")[1]) > 0
    assert (tmp_path / "scaling.png").stat().st_size > 10_000


@pytest.mark.thorough
def test_logsize(tmp_path):
    arguments = "--variables 20 --steps 120 --update-freq 50 --fit-steps 3"
    arguments += " --fit-variables 4 --record-steps 4000"
    page = run("logsize", tmp_path, *arguments.split())
    # The first step, each 50th one, and the last.
    assert numbers(page, "global only, `update_freq=50`")[0] == "5"
    points, size, *_ = numbers(
        page, "4 variables, `per_variable=True`, `update_freq=1`"
    )
    assert points == "3" and 1_000 < int(size.replace(",", "")) < 4_000
    logs, record = page.split("## The record")
    assert numbers(logs, "20")[:2] == ["120", "50"]
    assert re.search(r"^\| 20 \| 2,000 \| 1 \| .* \| 2,000 \|$", record, re.M)
    assert re.search(r"^\| 20 \| 4,000 \| 50 \| .* \| 1,\d{3} \|$", record, re.M)


@pytest.mark.thorough
def test_memory(tmp_path):
    page = run("memory", tmp_path, "--steps", "1000", "--models", "mlp")
    assert len(re.findall(r"^\| `\w+\(.*\)` .* [+-]\d+\.\d \|$", page, re.M)) == 2
    variables, statistics, applications, capacity, ring, *_ = map(
        int, numbers(page, "MLP 3×256, batch 128")
    )
    expected = 4 * capacity * (10 * applications + statistics * variables)
    assert ring == round(expected / 1e3)


# -- What is measured ------------------------------------------------------------------


class Sleeper(keras.callbacks.Callback):
    """Takes 0.4 s before the first batch, and 10 ms before each later one."""

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.01 if batch else 0.4)


def test_what_is_paid_once_is_no_part_of_a_step(benchmark):
    model = helper.regression()
    fit = benchmark.timing.Fit(model, helper.regression_data, 1, 4, [Sleeper()])
    fit()
    step, rest = fit()
    assert 10 <= step < 100 and rest >= 400


def test_ratios_are_those_of_a_round(benchmark):
    """A machine that becomes slower does not change them."""
    slower = np.array([1.0, 3.0, 2.0, 10.0])
    median, low, high = benchmark.timing.ratio(1.1 * slower, slower)
    assert (median, low, high) == pytest.approx((1.1, 1.1, 1.1))
    assert benchmark.timing.more(slower + 0.2, slower) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("control", "words"), [(1.03, "too noisy for a verdict"), (1.01, "takes 10.0%")]
)
def test_there_is_no_verdict_where_the_control_is_off(benchmark, control, words):
    factors = {"stock": 1, "control": control, "gradwatch": 1.1}
    steps = {n: [[f * t, 0.0] for t in (1, 2, 3)] for n, f in factors.items()}
    assert words in benchmark.overhead.verdict({"steps": steps})


@pytest.mark.parametrize(
    ("backend", "limit", "against"),
    [
        ("tensorflow", "2.90", "1.38"),
        ("jax", "3.60", "1.11"),
        ("torch", "2.40", "1.67"),
    ],
)
def test_the_first_fit_is_judged_by_the_limit(benchmark, backend, limit, against):
    seconds = {"stock": [2, 1, 4], "global_clipnorm": [4, 2, 8], "gradwatch": [4, 2, 8]}
    result = {"title": "tiny", "seconds": seconds}
    stock, clip, ours = benchmark.tracing.rows_of(backend, result)
    assert stock == ["tiny", "stock", "2.00", "1.00", "0.50", "", ""]
    assert clip[2:] == ["4.00", "2.00", "1.00", "", ""]
    assert ours[2:] == ["4.00", "2.00", "1.00", limit, against]


def test_a_command_renews_its_own_backend_and_models(benchmark, tmp_path):
    timing = benchmark.timing
    before = {b: {"a": {"title": "a", "is": "kept"}} for b in ("torch", "tensorflow")}
    (tmp_path / "page.json").write_text(json.dumps(before), encoding="utf-8")
    found = timing.renew(tmp_path, "page", [{"title": "b", "is": "new"}])
    assert found == timing.renew(tmp_path, "page", [])
    assert found["torch"] == before["torch"]
    assert {title: one["is"] for title, one in found["tensorflow"].items()} == {
        "a": "kept",
        "b": "new",
    }
    names = [(backend, title) for backend, title, _ in timing.by_backend(found)]
    assert names == [("tensorflow", "TensorFlow"), ("torch", "PyTorch")]


def test_pages_have_a_part_for_each_backend(benchmark):
    result = {
        "title": "tiny",
        "machine": "a machine",
        "command": "a command",
        "variables": 1,
        "parameters": 1,
        "events": 0,
        "steps": {"stock": [[2.0, 1.0]], "gradwatch": [[3.0, 1.0]]},
        "seconds": {"stock": [2.0], "gradwatch": [3.0]},
    }
    results = {backend: {"tiny": result} for backend in ("jax", "tensorflow")}
    overhead = benchmark.overhead.page(results, None)
    for page in (overhead, benchmark.tracing.page(results)):
        heads = [line for line in page if line.startswith("## ")]
        assert heads == ["## TensorFlow", "## JAX"]
        assert page.count("    a command") == 2
        assert sum("| 1.50" in line for line in page) >= 2


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_every_variant_starts_from_the_same(benchmark, name):
    workload = benchmark.models.MODELS[name]
    for one, other in zip(
        workload.build().weights, workload.build().weights, strict=True
    ):
        np.testing.assert_array_equal(read(one), read(other))
    for one, other in zip(workload.samples(2), workload.samples(2), strict=True):
        np.testing.assert_array_equal(one, other)


# -- The rivals ------------------------------------------------------------------------


def trained(workload, base, steps, callbacks=()):
    model = workload.build(base)
    x, y = workload.samples(steps)
    helper.fit(model, x, y, callbacks, batch_size=workload.batch_size)
    return model


def test_hand_written_steps_train_as_stock(benchmark, tmp_path):
    workload = benchmark.models.MODELS["mlp"]
    stock = trained(workload, keras.Model, 3)
    ours = trained(workload, benchmark.rivals.hand_written(tmp_path), 3)
    for one, other in zip(ours.weights, stock.weights, strict=True):
        np.testing.assert_allclose(read(one), read(other), atol=1e-6)
    assert len(list(tmp_path.iterdir())) == 1


def test_the_least_guard_trains_as_stock_and_leaves_out_what_is_not_finite(benchmark):
    workload = benchmark.models.MODELS["mlp"]
    stock = trained(workload, keras.Model, 3)
    ours = trained(workload, benchmark.rivals.least_guard(), 3)
    weights = [read(w) for w in ours.weights]
    for one, other in zip(weights, stock.weights, strict=True):
        np.testing.assert_allclose(one, read(other), atol=1e-6)
    x, y = workload.samples(1)
    helper.fit(ours, np.full_like(x, np.nan), y, batch_size=workload.batch_size)
    helper.assert_same(weights, [read(w) for w in ours.weights])


def test_auto_clip_knows_all_norms_and_clips_to_the_tenth_percentile(benchmark):
    workload = benchmark.models.MODELS["mlp"]
    history = GradientHistory()
    stock = trained(workload, keras.Model, 1, [history])
    ours = trained(workload, benchmark.rivals.auto_clip(), 1)
    # There is one norm, and no gradient is larger than all together.
    for one, other in zip(ours.weights, stock.weights, strict=True):
        np.testing.assert_allclose(read(one), read(other), atol=1e-6)
    assert int(ours.count) == 1
    assert float(ours.norms[0]) == pytest.approx(history.global_norm[0], rel=1e-5)
    # All earlier norms were nearly nothing: so is what is left of these gradients.
    ours.norms.assign(np.full(10_000, 1e-9, "float32"))
    ours.count.assign(500)
    before = [read(w) for w in ours.trainable_variables]
    helper.fit(ours, *workload.samples(1), batch_size=workload.batch_size)
    assert int(ours.count) == 501
    for one, other in zip(ours.trainable_variables, before, strict=True):
        np.testing.assert_allclose(read(one), other, atol=1e-9)


def test_only_what_was_traced_inside_is_checked(benchmark):
    x, y = helper.regression_data()
    checked, free = helper.regression(), helper.regression()
    with benchmark.rivals.check_numerics():
        helper.fit(checked, x, y)
    helper.fit(free, x, y)
    helper.fit(free, np.full_like(x, np.nan), y)
    with (
        benchmark.rivals.check_numerics(),
        pytest.raises(tf.errors.InvalidArgumentError, match="NaN"),
    ):
        helper.fit(checked, np.full_like(x, np.nan), y)
