"""A `fit` that an error ends: the report quotes the error."""

import keras
import pytest

from keras_gradwatch.callbacks import GradWatch
from tests import helper


class Failing(keras.layers.Layer):
    """Raises in the call with this number."""

    number = 5

    def call(self, x):
        self.number -= 1
        if self.number < 0:
            raise ArithmeticError("all elements of input should be\nbetween 0 and 1")
        return x


def test_the_report_quotes_it():
    x, y = helper.regression_data(80)
    layer = Failing()
    model = keras.Sequential([keras.Input((x.shape[1],)), layer, keras.layers.Dense(3)])
    model.compile("sgd", "mse", run_eagerly=True)
    watch = GradWatch(verbose=0)
    layer.number = 5
    with pytest.raises(ArithmeticError):
        helper.fit(model, x, y, [watch])
    report = watch.report()
    headline, error = report.verdict.split("\n")
    assert headline.startswith("Training ended with an error after ")
    assert error.startswith("Error: ArithmeticError: ")
    assert "should be between 0 and 1" in error

    layer.number = 1000
    helper.fit(model, x, y, [watch])
    assert "No explosion" in watch.report() and "Error" not in watch.report()


def generator(x, y):
    for row in range(0, len(x), 8):
        yield x[row : row + 8], y[row : row + 8]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_end_of_the_data_is_none():
    x, y = helper.regression_data(80)
    model = helper.regression()
    watch = GradWatch(verbose=0)
    model.fit(generator(x, y), verbose=0, shuffle=False, callbacks=[watch])
    assert watch.report().summary.error is None
