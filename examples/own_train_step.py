"""A model with its own `train_step`, and one batch of NaN in the data.

The step mixes each image with another one (mixup). The same model is trained twice:
alone, and under `keras_gradwatch.watch` with a callback that skips what would do harm.

    python examples/own_train_step.py [--log-dir DIR] [--epochs N]
"""

import argparse

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from sklearn.datasets import load_digits

import keras_gradwatch

BATCH = 32
POISONED = 7  # the number of the batch that is NaN, from 0


class Mixup(keras.Model):
    """Trains on mixtures of two images, with a gradient tape of its own."""

    def __init__(self):
        super().__init__(name="mixup")
        self.hidden = layers.Dense(64, name="hidden")
        self.normalization = layers.BatchNormalization(name="normalization")
        self.logits = layers.Dense(10, name="logits")

    def call(self, x, training=False):
        x = self.normalization(self.hidden(x), training=training)
        return self.logits(keras.ops.relu(x))

    def train_step(self, data):
        x, y = data
        share = tf.random.uniform(())
        mixed = share * x + (1 - share) * x[::-1]
        targets = share * y + (1 - share) * y[::-1]
        with tf.GradientTape() as tape:
            loss = self.compute_loss(mixed, targets, self(mixed, training=True))
        variables = self.trainable_variables
        gradients = tape.gradient(loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        for metric in self.metrics:  # the mean loss of the epoch
            metric.update_state(loss)
        return {metric.name: metric.result() for metric in self.metrics}


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
