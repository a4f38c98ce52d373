"""Cross-validation and grids: many runs with one callback and one directory."""

import copy
import pickle

import keras
import numpy as np
import pytest
from sklearn.model_selection import KFold

from keras_gradwatch.callbacks import GradWatch
from tests import helper

pytestmark = [pytest.mark.tensorflow, pytest.mark.torch]


def folds(x):
    return KFold(3).split(x)


@pytest.mark.thorough
@pytest.mark.parametrize("shared", [True, False])
def test_cross_validation_with_one_log_dir(shared, tmp_path, capsys):
    """One callback for all folds, or one for each: each fold is a run of its own."""
    x, y = helper.regression_data(48)
    x = helper.with_nan(x, 1, 8)
    one = GradWatch(tmp_path, update_freq=1)
    for fold, (train, _) in enumerate(folds(x)):
        # Equal first weights, shapes and numbers of updates.
        model = helper.regression("adam")
        watch = one if shared else GradWatch(tmp_path, update_freq=1)
        helper.fit(model, x[train], y[train], [watch])
        assert watch.history.steps.tolist() == [0, 1, 2, 3]
        # Trained on by somebody else: nobody's state is taken up.
        helper.fit(model, x[train], y[train], [watch], epochs=2)
        assert len(watch.events) == (0 if fold == 0 else 3)
    found = sorted(path.parent for path in tmp_path.rglob("state.jsonl"))
    expected = ["gradwatch", "run-2/gradwatch", "run-3/gradwatch"]
    assert [str(path.relative_to(tmp_path)) for path in found] == expected
    for path in found:
        assert len(list(path.glob("events.out.*"))) == 2  # one for each `fit`
    assert capsys.readouterr().out.count("contains another run") == 2


def test_models_of_equal_shapes_and_updates_do_not_take_each_others_state(tmp_path):
    """A model that was trained elsewhere is not taken for the one that was here."""
    x, y = helper.regression_data(80)
    first = helper.regression("adam")
    helper.fit(first, helper.with_nan(x, 3, 8), y, [GradWatch(tmp_path, verbose=0)])
    second = helper.regression("adam", seed=1)
    helper.fit(second, x[8:], y[8:])
    assert int(first.optimizer.iterations) == int(second.optimizer.iterations)
    watch = GradWatch(tmp_path, verbose=0)
    helper.fit(second, x, y, [watch])
    assert watch.events == [] and watch.history.steps[0] == 0
    # And the first one, saved and loaded, is.
    first.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    watch = GradWatch(tmp_path, verbose=0)
    helper.fit(loaded, x, y, [watch])
    assert len(watch.events) == 1 and watch.history.steps[0] == 10


@pytest.mark.tensorflow
def test_a_grid_search_of_scikeras(tmp_path, capsys):
    wrappers = pytest.importorskip("scikeras.wrappers", reason="scikeras is missing")
    from sklearn.model_selection import GridSearchCV

    x, y = helper.regression_data(48, units=1)
    estimator = wrappers.KerasRegressor(
        lambda: helper.regression("adam", units=1),
        callbacks=[GradWatch(tmp_path / "logs")],
        batch_size=8,
        epochs=1,
        verbose=0,
    )
    grid = GridSearchCV(estimator, {"epochs": [1, 2]}, cv=2)
    grid.fit(x, y.ravel())
    states = list((tmp_path / "logs").rglob("state.jsonl"))
    assert len(states) == 5  # four fits, and the best one once more
    for state in states:
        assert len(list(state.parent.glob("events.out.*"))) == 1
    pickle.loads(pickle.dumps(copy.deepcopy(estimator.callbacks)))


def test_a_copy_of_a_used_callback_begins_again(tmp_path):
    x, y = helper.regression_data(24)
    watch = GradWatch(tmp_path, verbose=0)
    helper.fit(helper.regression(), helper.with_nan(x, 1, 8), y, [watch])
    again = copy.deepcopy(watch)
    assert again.events == [] and len(again.history.steps) == 0
    helper.fit(helper.regression(), x, y, [again])
    assert (tmp_path / "run-2" / "gradwatch" / "state.jsonl").exists()
    assert again.events == [] and len(watch.events) == 1
    assert np.isfinite(again.history.loss).all()
