"""`examples/linear_regression_losses.py`: what it prints, and what it computes."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes

from tests import helper
from tests.test_examples import event_files, run


def least_squares(x, y):
    """Function that predicts as least squares on `x` and `y` does."""
    x, y = np.float64(x), np.float64(y)
    solution = np.linalg.lstsq(np.c_[x, np.ones(len(x))], y, rcond=None)[0]
    return lambda inputs: np.c_[inputs, np.ones(len(inputs))] @ solution


@pytest.mark.tensorflow
def test_what_it_prints(tmp_path, study):
    name = "linear_regression_losses.py"
    printed = run(name, tmp_path, "--quick", "--log-dir", "here")
    treatments, sizes = helper.tables(printed)
    kinds = [("linear", "squared"), ("linear", "Huber"), ("net", "squared")]
    assert [(row["model"], row["loss"]) for row in treatments] == kinds
    found = {(row["model"], row["loss"], row["run"]): row for row in sizes}
    assert len(found) == 8 and {row["spoiled"] for row in sizes} == {"× 10"}
    for row in treatments:
        for who in ("stock", "watched"):
            own = found[row["model"], row["loss"], who]
            assert row[f"held-out, {who}"] == own["held-out"]
            assert own["survived"] == f"{int(float(own['held-out']) < 1)} of 1"
            # Half the squared error of the outliers is far more than that of the rest.
            assert float(row[f"gap, {who}"]) < 0
    # What does not depend on training, once more by NumPy.
    x, spoiled, _, x_test, y_test = study.split("diabetes", 10, 0)
    error = np.mean((least_squares(x, spoiled)(x_test) - y_test) ** 2)
    solved = float(found["linear", "squared", "solved"]["held-out"])
    assert solved == pytest.approx(error, rel=0.01)
    # The loss is what helps: as much by SGD as where there is no learning rate.
    for who in ("stock", "watched", "solved"):
        squared, huber = (found["linear", loss, who] for loss in ("squared", "Huber"))
        assert float(huber["held-out"]) < float(squared["held-out"])
    assert (tmp_path / "here" / f"{name[:-3]}.png").stat().st_size > 10_000
    sizes = event_files(tmp_path / "here")
    assert len(sizes) == 3 and min(sizes.values()) > 1000


@pytest.mark.tensorflow
def test_one_target_in_twenty_is_spoiled(study):
    x, spoiled, clean, x_test, y_test = study.split("diabetes", 10, seed=1)
    assert len(x) == 332 and len(x_test) == 110
    changed = (spoiled != clean)[:, 0]
    assert changed.sum() == 16
    # Back to the numbers of the data set.
    raw, everything = load_diabetes(return_X_y=True, scaled=False)[1], []
    scale = np.ptp(raw) / np.ptp(np.concatenate([clean, y_test]))
    shift = raw.min() - scale * min(clean.min(), y_test.min())
    for part in (clean, y_test, spoiled):
        everything.append(scale * part[:, 0] + shift)
    clean, held_out, spoiled = everything
    both = np.sort(np.concatenate([clean, held_out]))
    np.testing.assert_allclose(both, np.sort(raw), rtol=1e-3)
    np.testing.assert_allclose(spoiled[changed], 10 * clean[changed], rtol=1e-3)


@pytest.mark.tensorflow
@pytest.mark.thorough
def test_a_run_comes_to_least_squares(study, monkeypatch):
    """Errors and gaps, against the solution that NumPy finds."""
    # On the full batch, where nothing is left of the noise of the batches.
    monkeypatch.setattr(study, "BATCH", 400)
    setting = study.Setting("linear", "squared")
    found = study.train("linear", setting, 300, 0, None)
    x, spoiled, clean, x_test, y_test = study.split("linear", 10, 0)
    predict = least_squares(x, spoiled)

    def error(inputs, targets):
        return np.mean((predict(inputs) - targets) ** 2)

    held_out = error(x_test, y_test)
    assert found.held_out == pytest.approx(held_out, rel=1e-3)
    assert found.gap == pytest.approx(held_out - error(x, spoiled), rel=1e-3)
    clean_gap = held_out - error(x, clean)
    assert found.clean_gap == pytest.approx(clean_gap, abs=1e-3)
    assert found.skipped == found.held == 0
