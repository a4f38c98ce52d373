import numpy as np
import pytest
from keras import ops

from keras_gradwatch.train_step import statistics
from keras_gradwatch.train_step.statistics import GRADIENT_NAMES, SparseRows


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


def measure(gradients):
    matrix = np.asarray(statistics.gradient_statistics(gradients))
    assert matrix.dtype == np.float32
    return [dict(zip(GRADIENT_NAMES, row, strict=True)) for row in matrix]


def assert_close(actual, expected, rtol=1e-5):
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol, err_msg=name)


def normal(*shape, scale=1.0, shift=0.0, dtype="float32"):
    random = np.random.default_rng(0)
    return (random.normal(size=shape) * scale + shift).astype(dtype)


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
    (row,) = measure([SparseRows(ops.convert_to_tensor(stored), whole.size)])
    assert_close(row, reference(whole))


@pytest.mark.parametrize("name", GRADIENTS)
def test_norms(name):
    gradient = GRADIENTS[name]
    expected = reference(gradient)["norm"]
    tensors = [ops.convert_to_tensor(gradient), ops.ones((4,))]
    np.testing.assert_allclose(statistics.norms(tensors), [expected, 2.0], 1e-5)


def test_norms_of_what_is_not_finite():
    tensors = [ops.convert_to_tensor([1.0, v]) for v in (np.nan, np.inf, 2.0)]
    norms = np.asarray(statistics.norms(tensors))
    assert np.isnan(norms[0]) and not np.isfinite(norms[1])
    np.testing.assert_allclose(norms[2], 5**0.5, 1e-6)


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
