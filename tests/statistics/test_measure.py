"""Statistics of gradients and of updates, against NumPy in float64."""

import numpy as np
import pytest
from keras import ops

from keras_gradwatch.statistics import measure as statistics
from keras_gradwatch.statistics.histograms import BINS, edges_of
from keras_gradwatch.statistics.measure import (
    GRADIENT_NAMES,
    MAX_PACKED_SIZE,
    MIN_PACKED_COUNT,
)
from keras_gradwatch.statistics.names import ALWAYS
from keras_gradwatch.tensors.sparse import SparseRows


def reference(gradient):
    """The six statistics of a finite gradient, in float64."""
    g = np.asarray(gradient, "float64")
    return {
        "norm": np.sqrt((g**2).sum()),
        "max_abs": np.abs(g).max(),
        "mean": g.mean(),
        "std": g.std(),
        "zero_fraction": (g == 0).mean(),
        "nonfinite_count": 0.0,
    }


def measured(gradients, names=GRADIENT_NAMES, detailed=True):
    """For each gradient a dict of its statistics, and the global norm."""
    matrix, norm = statistics.measure(gradients, names, detailed)
    matrix, norm = ops.convert_to_numpy(matrix), ops.convert_to_numpy(norm)
    assert matrix.dtype == norm.dtype == np.float32 and norm.shape == ()
    return [dict(zip(names, row, strict=True)) for row in matrix], norm


def measure(gradients):
    """For each gradient a dict of all its statistics."""
    return measured(gradients)[0]


def assert_close(actual, expected, rtol=1e-5):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol, err_msg=name)


def normal(*shape, scale=1.0, shift=0.0, dtype="float32"):
    random = np.random.default_rng(0)
    return (random.normal(size=shape) * scale + shift).astype(dtype)


BASIC_NAMES = ("norm", "zero_fraction", "nonfinite_count")
GRADIENTS = {
    "plain": normal(7, 5),
    "a mean that is large against the deviation": normal(50, shift=1e3),
    "half zeros": np.where(normal(40) > 0, normal(40), np.float32(0)),
    "zeros": np.zeros((3, 4), "float32"),
    "scalar": np.float32(-2.5),
    "squares overflow": normal(6, 6, scale=1e25),
    "one huge component": np.array([1e-3, 3e38, 0.0], "float32"),
    "squares vanish": normal(6, 6, scale=1e-30),
    "denormal squares": normal(30, scale=1e-20),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_equal_to_float64(name):
    gradient = GRADIENTS[name]
    (row,) = measure([ops.convert_to_tensor(gradient)])
    assert_close(row, reference(gradient), 1e-4 if "large" in name else 1e-5)


def test_each_gradient_by_itself():
    rows = measure([ops.convert_to_tensor(g) for g in GRADIENTS.values()])
    for row, gradient in zip(rows, GRADIENTS.values(), strict=True):
        assert_close(row, reference(gradient), 1e-4)


@pytest.mark.parametrize("detailed", [True, False])
@pytest.mark.parametrize("names", [GRADIENT_NAMES, BASIC_NAMES, ALWAYS])
def test_the_global_norm(names, detailed):
    """That of all gradients together, be they within float32's range or not."""
    plain = [g for n, g in GRADIENTS.items() if n in ("plain", "half zeros", "scalar")]
    for gradients in (plain, list(GRADIENTS.values())):
        tensors = [ops.convert_to_tensor(g) for g in gradients]
        rows, total = measured(tensors, names, detailed)
        expected = np.sqrt(sum(reference(g)["norm"] ** 2 for g in gradients))
        np.testing.assert_allclose(total, min(expected, 3.4028235e38), 1e-5)
        for row, gradient in zip(rows, gradients, strict=True):
            expected = reference(gradient)["norm"]
            np.testing.assert_allclose(row["norm"], expected, 1e-5)


@pytest.mark.parametrize(
    "names", [BASIC_NAMES, ("norm", "mean", "std", "nonfinite_count"), ALWAYS]
)
def test_only_the_statistics_that_are_wanted(names):
    tensors = [ops.convert_to_tensor(g) for g in GRADIENTS.values()]
    matrix, _ = statistics.statistics(tensors, names)
    matrix = ops.convert_to_numpy(matrix)
    for row, gradient in zip(matrix, GRADIENTS.values(), strict=True):
        expected = {k: v for k, v in reference(gradient).items() if k in names}
        assert_close(dict(zip(names, row, strict=True)), expected, 1e-4)


def test_without_details_the_norm_of_each_and_nothing_else():
    names = ("plain", "half zeros", "zeros", "scalar")
    rows, _ = measured([ops.convert_to_tensor(GRADIENTS[n]) for n in names], detailed=0)
    for row, name in zip(rows, names, strict=True):
        known = {k: v for k, v in reference(GRADIENTS[name]).items() if k in ALWAYS}
        assert_close(row, known)
        assert all(np.isnan(v) for k, v in row.items() if k not in ALWAYS)


@pytest.mark.parametrize("names", [GRADIENT_NAMES, ALWAYS])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_off_the_scale_gets_details_unasked(names, bad):
    """What is not finite is counted, and whose squares overflow has its norm."""
    gradients = [np.array([bad, 0.0, 1.0], "float32"), GRADIENTS["plain"]]
    tensors = [ops.convert_to_tensor(g) for g in gradients]
    (first, second), total = measured(tensors, names, detailed=False)
    assert first["nonfinite_count"] == (bad != 1e30)
    assert_close(second, {k: reference(gradients[1])[k] for k in names})
    if bad == 1e30:
        assert_close(first, {k: reference(gradients[0])[k] for k in names})
        np.testing.assert_allclose(total, 1e30, 1e-5)
    else:
        np.testing.assert_equal([first["norm"], total], [bad, bad])


@pytest.mark.parametrize("scale", [1e-12, 1e-18, 1e-25])
def test_small_norms_without_details(scale):
    """Below 1e-19 a norm may be given as 0: the only place in which it may."""
    gradient = np.array([3 * scale, -4 * scale], "float32")
    (row,), total = measured([ops.convert_to_tensor(gradient)], detailed=False)
    expected = reference(gradient)["norm"]
    if expected > 1e-19:
        np.testing.assert_allclose([row["norm"], total], expected, 1e-5)
    else:
        assert 0 <= row["norm"] <= 1e-19 and 0 <= total <= 1e-19
    (row,), total = measured([ops.convert_to_tensor(gradient)])
    np.testing.assert_allclose([row["norm"], total], expected, 1e-5)


@pytest.mark.parametrize("detailed", [True, False])
def test_many_small_ones(detailed):
    """They are measured together, and stand at their own places."""
    random = np.random.default_rng(1)
    shapes = [(3, 4), (5,), (MAX_PACKED_SIZE + 1,), ()] * (MIN_PACKED_COUNT + 1)
    gradients = [random.normal(size=s).astype("float32") for s in shapes]
    tensors = [ops.convert_to_tensor(g) for g in gradients]
    rows, total = measured(tensors, detailed=detailed)
    names = GRADIENT_NAMES if detailed else ALWAYS
    for row, gradient in zip(rows, gradients, strict=True):
        known = reference(gradient)
        for name in names:
            np.testing.assert_allclose(row[name], known[name], 1e-4, 1e-6, err_msg=name)
    squares = sum((g.astype("float64") ** 2).sum() for g in gradients)
    np.testing.assert_allclose(total, np.sqrt(squares), 1e-5)


def test_float16_is_summed_in_float32():
    (row,) = measure([ops.convert_to_tensor(np.full(4, 300, "float16"))])
    assert_close(row, {"norm": 600.0, "max_abs": 300.0, "mean": 300.0, "std": 0.0})


@pytest.mark.parametrize(
    ("bad", "shown"), [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)]
)
def test_non_finite_values_are_counted(bad, shown):
    broken = np.array([[bad, 0.0], [bad, 4.0]], "float32")
    sound = np.array([3.0, 4.0, 0.0], "float32")
    first, second = measure([ops.convert_to_tensor(g) for g in (broken, sound)])
    assert first["nonfinite_count"] == 2
    assert first["zero_fraction"] == 0.25
    np.testing.assert_equal([first["norm"], first["max_abs"]], [shown, shown])
    assert not np.isfinite(first["mean"])
    assert_close(second, reference(sound))


def test_nan_is_worse_than_infinite():
    (row,) = measure([ops.convert_to_tensor([np.nan, np.inf, 1.0])])
    assert np.isnan(row["norm"]) and row["nonfinite_count"] == 2


@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-30])
def test_sparse_rows_count_as_the_whole_gradient(scale):
    whole = np.zeros((12, 4), "float32")
    whole[[2, 7, 9]] = normal(3, 4, scale=scale, shift=scale)
    stored = np.concatenate([whole[[2, 7, 9]], np.zeros((2, 4), "float32")])
    tensors = [SparseRows(ops.convert_to_tensor(stored), whole.size)]
    (row,), total = measured(tensors)
    assert_close(row, reference(whole))
    np.testing.assert_allclose(total, reference(whole)["norm"], 1e-5)


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([3.0, 4.0], 5.0),
        ([0.0, 0.0], 0.0),
        ([3e25, 4e25], 5e25),
        ([3e-30, 4e-30], 5e-30),
        ([3.4e38, 3.4e38], 3.4028235e38),  # finite gradients have a finite norm
        ([1.0, np.nan], np.nan),
        ([1.0, np.inf], np.inf),
    ],
)
def test_global_norm(norms, expected):
    actual = statistics.global_norm(ops.convert_to_tensor(norms, "float32"))
    np.testing.assert_allclose(actual, expected, 1e-6)


def test_update_statistics():
    old = [normal(4, 3), np.zeros(3, "float32"), np.zeros(2, "float32")]
    new = [old[0] + 0.01 * normal(4, 3, shift=1.0), old[1], old[2] + 1]
    actual = np.asarray(
        statistics.update_statistics(
            [ops.convert_to_tensor(w) for w in old],
            [ops.convert_to_tensor(w) for w in new],
        )
    )
    before = np.linalg.norm(old[0].astype("float64"))
    moved = np.linalg.norm(new[0].astype("float64") - old[0])
    expected = [[before, moved / before], [0.0, 0.0], [0.0, np.inf]]
    np.testing.assert_allclose(actual, expected, 1e-5)


def test_update_statistics_see_weights_that_became_nan():
    old, new = [ops.ones((2,))], [ops.convert_to_tensor([np.nan, 1.0])]
    (row,) = np.asarray(statistics.update_statistics(old, new))
    np.testing.assert_allclose(row, [2**0.5, np.nan], 1e-6)


def test_a_histogram_whose_range_exceeds_float32():
    values = np.full((1, BINS + 2), 1.0, "float32")
    values[0, -2:] = -3e38, 3e38
    expected = np.linspace(-3e38, 3e38, BINS + 1)
    np.testing.assert_allclose(edges_of(values)[0], expected, 1e-6, 1e31)
