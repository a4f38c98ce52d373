"""The loss of a step that no method of Keras is told."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradientHistory, GradWatch
from tests import helper, steps

if helper.BACKEND == "jax":
    from jax import value_and_grad  # not looked up where it is used
elif helper.BACKEND == "tensorflow":
    import tensorflow as tf


class Hidden(keras.Model):
    """A step whose differentiation is not seen; `kind` says what its logs are."""

    def __init__(self, kind):
        super().__init__()
        self.inner, self.kind = keras.layers.Dense(3), kind
        name = "total_loss" if kind == "only" else "loss"
        self.tracker = keras.metrics.Mean(name=name)
        self.others = [keras.metrics.Mean(name="accuracy")]

    def call(self, x):
        return self.inner(x)

    @property
    def metrics(self):
        return [self.tracker] if self.kind in ("mean", "only") else self.others

    def error(self, y, prediction):
        return ops.mean(ops.square(y - prediction))

    def own_logs(self, loss):
        if self.kind in ("mean", "only"):
            self.tracker.update_state(loss, sample_weight=8)
            return {self.tracker.name: self.tracker.result()}
        self.others[0].update_state(0.5)
        accuracy = self.others[0].result()
        if self.kind == "value":
            return {"loss": loss, "accuracy": accuracy}
        return {"accuracy": accuracy}

    if helper.BACKEND == "jax":

        def train_step(self, state, data):
            trained, kept, slots, metrics = state
            x, y = data

            def compute(trained):
                prediction, _ = self.stateless_call(trained, kept, x)
                return self.error(y, prediction)

            loss, gradients = value_and_grad(compute)(trained)
            trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
            pairs = zip(self.metrics_variables, metrics, strict=True)
            with keras.StatelessScope(pairs) as scope:
                logs = self.own_logs(loss)
            metrics = [scope.get_current_value(v) for v in self.metrics_variables]
            return logs, (trained, kept, slots, metrics)

    elif helper.BACKEND == "tensorflow":

        def train_step(self, data):
            @tf.function
            def differentiate(x, y):
                with tf.GradientTape() as tape:
                    loss = self.error(y, self(x))
                return loss, tape.gradient(loss, self.trainable_variables)

            loss, gradients = differentiate(*data)
            self.optimizer.apply(gradients, self.trainable_variables)
            return self.own_logs(loss)

    else:

        def train_step(self, data):
            x, y = data
            self.zero_grad()
            # In two parts, as under gradient accumulation by hand.
            for part in (slice(0, 4), slice(4, 8)):
                (self.error(y[part], self(x[part])) / 2).backward()
            variables = self.trainable_variables
            with steps._no_gradients():
                self.optimizer.apply([v.value.grad for v in variables], variables)
                return self.own_logs(self.error(y, self(x)))


def run(kind, callbacks):
    keras.utils.set_random_seed(0)
    model = Hidden(kind)
    model.compile(keras.optimizers.SGD(0.0))
    x, y = helper.regression_data(40)
    model(x[:1])
    helper.fit(model, x, y, callbacks, epochs=2)
    errors = (model.predict(x, verbose=0) - y) ** 2
    return np.tile(errors.reshape(5, -1).mean(axis=1), 2)


@pytest.mark.parametrize("kind", ["mean", "value", "only"])
@pytest.mark.parametrize(
    "callback", helper.few([GradWatch], [GradWatch, GradientHistory])
)
def test_the_loss_is_taken_from_the_logs(kind, callback, capsys):
    watch = callback()
    expected = run(kind, [watch])
    losses = (watch.history if callback is GradWatch else watch).loss
    np.testing.assert_allclose(losses, expected, 1e-5)
    assert capsys.readouterr().out == ""


@pytest.mark.thorough
def test_what_rests_is_said_once_where_the_loss_stays_unknown(capsys):
    watch = GradWatch()
    run("none", [watch])
    assert np.isnan(watch.history.loss).all() and not watch.events
    (line,) = capsys.readouterr().out.splitlines()
    assert "is not known in this `train_step`" in line
    assert "Divergence, LossSpike are disabled and large updates are not judged" in line
    run("none", [GradWatch(verbose=0)])
    assert capsys.readouterr().out == ""
