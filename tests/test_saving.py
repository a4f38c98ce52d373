"""Promise 8: nothing stays behind in what is saved, copied or pickled."""

import copy
import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_gradwatch import GradWatchModel, watch
from keras_gradwatch.callbacks import GradWatch, ReduceLROnExplosion
from tests import helper

# The package cannot be imported there.
LOAD_WITHOUT = """
import sys
sys.modules["keras_gradwatch"] = None
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(x, verbose=0))
model.fit(x, np.zeros((len(x), 3)), verbose=0)
print(float(model.optimizer.learning_rate))
"""
# Only the package is imported there.
LOAD_WITH = """
import sys
import keras_gradwatch
import keras, numpy as np
model = keras.models.load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], model.predict(x, verbose=0))
assert type(model) is not keras.Model
assert isinstance(model, keras_gradwatch.GradWatchModel), type(model).__mro__
history = keras_gradwatch.callbacks.GradientHistory()
model.fit(x, np.zeros((len(x), 3)), verbose=0, callbacks=[history])
print(len(history.steps))
"""


def schedule():
    return keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)


def trained(watched, optimizer):
    x, y = helper.regression_data(24)
    model = helper.regression(optimizer, metrics=["mae"])
    bad = helper.with_nan(x, 1, 8)
    if watched:
        helper.fit(watch(model), bad, y, [ReduceLROnExplosion(verbose=0)])
        assert model.gradwatch.recorder.events[0].step == 1
    else:
        helper.fit(model, helper.without(x, 1, 8), helper.without(y, 1, 8))
    return model


def datasets(path):
    """Shapes of all datasets by name, of an h5 file."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item.shape})
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("rate", helper.few(["schedule"], ["float", "schedule"]))
def test_the_files_are_those_of_a_model_that_was_never_watched(rate, tmp_path):
    listed = []
    for watched in (False, True):
        rates = {"float": 0.1, "schedule": schedule()}
        model = trained(watched, keras.optimizers.Adam(rates[rate]))
        folder = tmp_path / str(watched)
        folder.mkdir()
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        with zipfile.ZipFile(folder / "model.keras") as archive:
            names = archive.namelist()
            archive.extract("model.weights.h5", folder / "inside")
            config = archive.read("config.json").decode()
        assert "gradwatch" not in config
        listed.append(
            (
                names,
                datasets(folder / "inside" / "model.weights.h5"),
                datasets(folder / "model.weights.h5"),
            )
        )
    assert listed[0] == listed[1]


@pytest.mark.thorough
@pytest.mark.parametrize("rate", ["schedule"])
def test_loads_where_the_package_cannot_be_imported(rate, tmp_path):
    x, _ = helper.regression_data(8)
    model = trained(True, keras.optimizers.Adam(schedule()))
    cut = float(model.optimizer._get_current_learning_rate())
    np.testing.assert_allclose(cut, 0.05 * 0.9**0.2, 1e-5)
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    arguments = [tmp_path / name for name in ("model.keras", "x.npy", "out.npy")]
    printed = helper.run_python(LOAD_WITHOUT, *arguments)
    uncut = 0.1 * 0.9**0.3  # a schedule that was cut runs uncut there
    np.testing.assert_allclose(float(printed.split()[-1]), uncut, 1e-4)
    helper.assert_same(np.load(tmp_path / "out.npy"), model.predict(x, verbose=0), 1e-6)


def trained_model():
    return trained(True, "adam")


def gradwatch_model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    model = GradWatchModel(inputs, keras.layers.Dense(3)(inputs))
    model.compile("adam", "mse")
    return model


def test_gradwatch_model_survives_a_fresh_process(tmp_path):
    x, y = helper.regression_data(24)
    model = gradwatch_model()
    helper.fit(model, x, y, [GradWatch(verbose=0)])
    np.save(tmp_path / "x.npy", x)
    model.save(tmp_path / "model.keras")
    arguments = [tmp_path / name for name in ("model.keras", "x.npy", "out.npy")]
    assert helper.run_python(LOAD_WITH, *arguments).split()[-1] == "1"
    helper.assert_same(np.load(tmp_path / "out.npy"), model.predict(x, verbose=0), 1e-6)


def test_gradwatch_model_survives_clone_model():
    x, y = helper.regression_data(24)
    model = gradwatch_model()
    helper.fit(model, x, y)
    clone = keras.models.clone_model(model)
    assert isinstance(clone, GradWatchModel)
    assert clone.gradwatch is not model.gradwatch and clone.gradwatch.step == 0
    clone.set_weights(model.get_weights())
    clone.compile("adam", "mse")
    helper.fit(clone, x, y)
    assert (clone.gradwatch.step, model.gradwatch.step) == (3, 3)


def functional(base):
    inputs = keras.Input((5,))
    return base(inputs, keras.layers.Dense(3)(inputs))


def subclassed(base):
    class Own(base):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    return Own()


def subclass_of_subclass(base):
    class Own(base):
        def __init__(self, units=3):
            super().__init__()
            self.dense = keras.layers.Dense(units)

        def call(self, x):
            return self.dense(x)

    class Deeper(Own):
        def __init__(self):
            super().__init__(units=3)

        def call(self, x):
            return 2 * super().call(x)

    return Deeper()


def functional_subclass(base):
    class Own(base):
        pass

    return functional(Own)


ORDERS = [
    [functional, subclassed, functional_subclass, subclass_of_subclass],
    [subclass_of_subclass, functional_subclass, subclassed, functional],
]


@pytest.mark.thorough
@pytest.mark.parametrize("order", helper.few(ORDERS[:1], ORDERS))
def test_both_styles_in_one_process(order):
    x, y = helper.regression_data(8)
    bases = GradWatchModel.__bases__
    for make in (*order, *order):
        model = make(GradWatchModel)
        model.compile("sgd", "mse")
        helper.fit(model, x, y)
        assert isinstance(model, GradWatchModel)
        assert model.gradwatch.drain().steps.tolist() == [0]
    assert GradWatchModel.__bases__ == bases


def test_a_subclass_may_override_train_step():
    calls = []

    class Own(GradWatchModel):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

        def train_step(self, *arguments):  # on JAX the state comes first
            calls.append(1)
            return super().train_step(*arguments)

    x, y = helper.regression_data(16)
    model = Own()
    model.compile("sgd", "mse")
    helper.fit(model, x, y)
    assert calls and model.gradwatch.drain().steps.tolist() == [0, 1]
    assert not model.gradwatch.steps_are_stock


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
@pytest.mark.parametrize(
    "make", helper.few([trained_model], [trained_model, gradwatch_model])
)
def test_copies_of_a_watched_model(way, make):
    x, y = helper.regression_data(8)
    model = make()
    helper.fit(model, x, y)
    steps, weights = model.gradwatch.step, model.get_weights()
    if way == "deepcopy":
        copied = copy.deepcopy(model)
    else:
        copied = pickle.loads(pickle.dumps(model))
    helper.assert_same(copied.get_weights(), weights)
    copied.compile("sgd", "mse")
    helper.fit(copied, x, y, [watching := GradWatch(verbose=0)])
    assert len(watching.history.steps) == 1
    # The original is another model still.
    assert model.gradwatch.step == steps
    helper.assert_same(model.get_weights(), weights)
    assert not np.array_equal(copied.get_weights()[0], weights[0])
