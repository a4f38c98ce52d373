"""Settings that contradict each other are named, with the edit that mends them."""

import keras
import numpy as np
import pytest
from keras import losses
from sklearn.datasets import load_breast_cancer

from keras_gradwatch.callbacks import GradWatch
from tests import helper


def report_of(last, loss, *, classes=2, optimizer="sgd", epochs=1, hidden=("relu",)):
    """The report of a short run of a network whose last layer and loss are given."""
    keras.utils.set_random_seed(0)
    x, y = helper.digits(320)
    y = y % classes
    name = str(getattr(loss, "name", loss))
    if last.units > 1 and "sparse" not in name:
        y = keras.utils.to_categorical(y, last.units)
    layers = [keras.layers.Dense(16, activation) for activation in hidden]
    model = keras.Sequential([keras.Input((64,)), *layers, last])
    model.compile(optimizer, loss)
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 32, epochs=epochs)
    return watch.report()


def head(units, activation=None):
    return keras.layers.Dense(units, activation, name="head")


# Keras warns of some of them, too.
@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:You are using a softmax", "ignore:.*from_logits")
@pytest.mark.parametrize(
    ("last", "loss", "words", "fix"),
    [
        (
            head(1, "softmax"),
            "binary_crossentropy",
            "softmax over one unit",
            'Dense(1, activation="sigmoid")',
        ),
        (
            head(1),
            "binary_crossentropy",
            "has no sigmoid",
            "BinaryCrossentropy(from_logits=True)",
        ),
        (head(1, "tanh"), "binary_crossentropy", "activation tanh", '"sigmoid"'),
        (
            head(10),
            "sparse_categorical_crossentropy",
            "has no softmax",
            "SparseCategoricalCrossentropy(from_logits=True)",
        ),
        (head(10, "relu"), "categorical_crossentropy", "activation relu", '"softmax"'),
        (
            head(10, "softmax"),
            losses.SparseCategoricalCrossentropy(from_logits=True),
            "applies another one",
            "Remove the activation",
        ),
        (head(1), "poisson", "takes their logarithm", "softplus"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_last_layer_and_the_loss(last, loss, words, fix):
    report = report_of(last, loss, classes=max(2, last.units))
    (found,) = [f for f in [*report.causes, *report.symptoms] if f.kind == "settings"]
    assert words in found.words and "`head`" in found.words
    assert fix in report.fixes[0]


@pytest.mark.parametrize(
    ("last", "loss"),
    [
        (head(1, "sigmoid"), "binary_crossentropy"),
        (head(1), losses.BinaryCrossentropy(from_logits=True)),
        (head(10, "softmax"), "sparse_categorical_crossentropy"),
        (head(10), losses.CategoricalCrossentropy(from_logits=True)),
        (head(1), "mse"),
        (head(1, "softplus"), "poisson"),
        (head(10, "sigmoid"), "mse"),
        (head(10, "sigmoid"), "binary_crossentropy"),
    ],
)
@pytest.mark.thorough
def test_settings_that_fit_are_not_named(last, loss):
    report = report_of(last, loss, classes=max(2, last.units), epochs=4)
    found = {finding.kind for finding in [*report.symptoms, *report.causes]}
    assert found <= {"learns poorly", "too few steps"}


@pytest.mark.thorough
def test_a_negative_rate():
    report = report_of(head(1), "mse", optimizer=keras.optimizers.SGD(-0.01))
    assert "the learning rate is negative (-0.01)" in report
    assert report.fixes[0] == "Compile with a learning rate of 0.01."


def test_a_contradiction_is_printed_once(capsys):
    x, y = helper.digits(64)
    model = keras.Sequential([keras.Input((64,)), head(10)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    for _ in range(2):
        helper.fit(model, x, y, [GradWatch()])
    assert capsys.readouterr().out.count("has no softmax") == 2  # one for each callback


@pytest.mark.thorough
def test_a_rate_that_is_too_low():
    sgd = keras.optimizers.SGD(1e-6)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    report = report_of(head(10), loss, classes=10, optimizer=sgd, epochs=12)
    assert report.startswith("The loss has not fallen in 120 steps: the learning rate")
    assert [cause.kind for cause in report.causes] == ["low rate"]
    assert "from 1e-06 to about" in report.fixes[0]


@pytest.mark.filterwarnings("ignore:You are using a softmax")
def test_an_output_that_does_not_depend_on_the_weights():
    x = np.ones((64, 4), "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, "relu")])
    model.add(keras.layers.Dense(1, "softmax", name="head"))
    model.compile("sgd", "mse")
    helper.fit(model, x, 0 * x[:, :1], [watch := GradWatch(verbose=0)])
    report = watch.report()
    assert report.startswith("No gradient reaches any kernel: `head` is a softmax over")


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("hidden", "cause"), [((), "no hidden layer"), ((None, None), "no activation")]
)
def test_a_model_that_can_only_guess(hidden, cause):
    """The sign of a product of two inputs is nothing that a linear model learns."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(640, 2)).astype("float32")
    y = (x.prod(axis=1, keepdims=True) > 0).astype("float32")
    layers = [keras.layers.Dense(8, activation) for activation in hidden]
    model = keras.Sequential([keras.Input((2,)), *layers, head(1, "sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 16, epochs=6)
    report = watch.report()
    assert [symptom.kind for symptom in report.symptoms] == ["not learning"]
    assert [cause.kind for cause in report.causes] == ["structure"]
    assert cause in report.splitlines()[0]


@pytest.mark.thorough
def test_a_momentum_that_is_too_high():
    sgd = keras.optimizers.SGD(3.0, momentum=0.99)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    report = report_of(head(10), loss, classes=10, optimizer=sgd, epochs=4)
    assert report.exploded and report.causes[0].kind == "rate"
    assert "a momentum of 0.99 multiplies the learning rate of 3 by 100" in report


def test_a_first_loss_far_above_guessing():
    """Large inputs, although nothing explodes."""
    x, y = load_breast_cancer(return_X_y=True)
    keras.utils.set_random_seed(0)
    hidden, last = keras.layers.Dense(16, "relu"), keras.layers.Dense(1)
    model = keras.Sequential([keras.Input((30,)), hidden, last])
    loss = losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-4), loss)
    x, y = x.astype("float32"), y.astype("float32")
    helper.fit(model, x, y, [watch := GradWatch(verbose=0, trust_bound=None)], 32)
    report = watch.report()
    assert report.startswith("The first loss is")
    assert [cause.kind for cause in report.causes] == ["inputs"]


@pytest.mark.thorough
def test_many_classes_that_are_learned_slowly():
    """A batch does not show all classes: its labels are no measure of guessing."""
    random = np.random.default_rng(0)
    classes, centers = random.integers(0, 200, 4000), random.normal(size=(200, 16))
    x = (centers[classes] + 2 * random.normal(size=(4000, 16))).astype("float32")
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(200)])
    helper.compiled(model, keras.optimizers.Adam(1e-3))
    watch = GradWatch(verbose=0)
    helper.fit(model, x, classes, [watch], 32, epochs=3)
    assert watch.report().symptoms == []


@pytest.mark.thorough
def test_a_frozen_base_is_a_hidden_layer():
    x, y = helper.digits(320)
    keras.utils.set_random_seed(0)
    base = keras.layers.Dense(16, "relu", trainable=False)
    model = keras.Sequential([keras.Input((64,)), base, head(10)])
    helper.compiled(model, keras.optimizers.SGD(1e-6))
    helper.fit(model, x, y, [watch := GradWatch(verbose=0)], 16, epochs=12)
    assert "hidden layer" not in watch.report()


def test_an_embedding_that_is_the_last_layer_too():
    """The classes are those of the output, not the embedding's own."""
    tokens = keras.Input((6,), dtype="int32")
    embedding = keras.layers.ReversibleEmbedding(50, 8, tie_weights=True)
    model = keras.Model(tokens, embedding(embedding(tokens), reverse=True))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    x = np.random.default_rng(0).integers(0, 50, (32, 6))
    helper.fit(model, x, x, [watch := GradWatch(verbose=0)])
    assert "labels" not in watch.report()
