"""A model with its own `train_step`, and one batch of NaN in the data.

The step mixes each image with another one (mixup). The same model is trained twice:
alone, and under `keras_gradwatch.watch` with a callback that skips what would do harm.

    python examples/own_train_step.py [--log-dir DIR] [--epochs N]
"""

import argparse

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import keras_gradwatch

BATCH = 32
POISONED = 7  # the number of the batch that is NaN, from 0


class Mixup(keras.Model):
    """Trains on mixtures of two images; a step for each of Keras's backends."""

    def __init__(self):
        super().__init__(name="mixup")
        self.hidden = layers.Dense(64, name="hidden")
        self.normalization = layers.BatchNormalization(name="normalization")
        self.logits = layers.Dense(10, name="logits")

    def call(self, x, training=False):
        x = self.normalization(self.hidden(x), training=training)
        return self.logits(keras.ops.relu(x))

    def mix(self, x, y):
        """One part of each example, and three parts of one from the other end."""
        flip = keras.ops.flip
        return 0.25 * x + 0.75 * flip(x, 0), 0.25 * y + 0.75 * flip(y, 0)

    def on_tensorflow(self, data):
        import tensorflow as tf

        x, y = self.mix(*data)
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        return self.logs_of(loss)

    def on_jax(self, state, data):
        import jax

        trainable, others, optimizer, metrics = state
        x, y = self.mix(*data)

        def loss_of(trainable):
            logits, new = self.stateless_call(trainable, others, x, training=True)
            return self.compute_loss(x, y, logits), new

        found, gradients = jax.value_and_grad(loss_of, has_aux=True)(trainable)
        loss, others = found
        trainable, optimizer = self.optimizer.stateless_apply(
            optimizer, gradients, trainable
        )
        mapping = zip(self.metrics_variables, metrics, strict=True)
        with keras.StatelessScope(mapping) as scope:
            logs = self.logs_of(loss)
        metrics = [scope.get_current_value(v) for v in self.metrics_variables]
        return logs, (trainable, others, optimizer, metrics)

    def on_torch(self, data):
        import torch

        x, y = self.mix(*data)
        self.zero_grad()
        loss = self.compute_loss(x, y, self(x, training=True))
        loss.backward()
        variables = self.trainable_variables
        with torch.no_grad():
            self.optimizer.apply([v.value.grad for v in variables], variables)
        return self.logs_of(loss)

    def logs_of(self, loss):
        """The mean loss of the epoch so far."""
        for metric in self.metrics:
            metric.update_state(loss)
        return self.get_metrics_result()

    def train_step(self, *args):
        """The step for the backend in use; Keras calls it in the backend's own way."""
        return getattr(self, f"on_{keras.config.backend()}")(*args)


def data():
    """Digits, one-hot classes; one batch of the images is NaN."""
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    x[POISONED * BATCH : (POISONED + 1) * BATCH] = np.nan
    return x, keras.utils.to_categorical(y)


def train(epochs, log_dir=None):
    """Trains one model, watched if there is a `log_dir`, and says what came out."""
    keras.utils.set_random_seed(0)
    model = Mixup()
    callbacks = []
    if log_dir is not None:
        keras_gradwatch.watch(model)
        skip = keras_gradwatch.callbacks.SkipOnExplosion()
        board = keras_gradwatch.callbacks.GradientTensorBoard(log_dir, update_freq=5)
        callbacks = [skip, board]
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    x, y = data()
    fit = {"batch_size": BATCH, "epochs": epochs, "shuffle": False, "verbose": 0}
    fitted = model.fit(x, y, callbacks=callbacks, **fit)
    broken = [w.path for w in model.weights if not np.isfinite(w.numpy()).all()]
    print(f"variables with NaN: {len(broken)} of {len(model.weights)}")
    print(f"loss: {fitted.history['loss'][-1]:.3f}")
    if callbacks:
        print(f"steps: {model.gradwatch.step}, of which skipped: {len(skip.events)}")


def main():
    """Trains alone, then watched."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-dir", default="logs/own_train_step")
    parser.add_argument("--epochs", type=int, default=1)
    arguments = parser.parse_args()
    print(f"Batch {POISONED} of each epoch is NaN.\n\nalone:")
    train(arguments.epochs)
    print("\nwatched:")
    train(arguments.epochs, arguments.log_dir)
    print(f"see the gradients: tensorboard --logdir {arguments.log_dir}")


if __name__ == "__main__":
    main()
