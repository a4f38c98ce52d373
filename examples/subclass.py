"""A subclassed model on handwritten digits, with its gradients logged and clipped.

`GradWatchModel` takes the place of `keras.Model` as the base class; nothing else in the
model changes.

    python examples/subclass.py [--log-dir DIR] [--epochs N]
"""

import argparse

import keras
from keras import layers
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras_gradwatch


class Residual(layers.Layer):
    """Adds a Dense-ReLU branch to its input."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.branch = layers.Dense(units, activation="relu")

    def call(self, x):
        return x + self.branch(x)


class Classifier(keras_gradwatch.GradWatchModel):
    """A stem, residual blocks, and a head of 10 logits."""

    def __init__(self, units=64, blocks=3):
        super().__init__(name="classifier")
        self.stem = layers.Dense(units, name="stem")
        self.blocks = [Residual(units, name=f"block_{i}") for i in range(blocks)]
        self.head = layers.Dense(10, name="head")

    def call(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def main():
    """Trains the classifier and prints what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-dir", default="logs/subclass")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32") / 16
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)

    model = Classifier()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    board = keras_gradwatch.callbacks.GradientTensorBoard(
        arguments.log_dir, update_freq=5, per_variable=True, include="kernel"
    )
    clipping = keras_gradwatch.callbacks.GradientClipping(global_clipnorm=2.0)
    seen = keras_gradwatch.callbacks.GradientHistory()
    callbacks = [board, clipping, seen]
    fitted = model.fit(
        x_train, y_train, epochs=arguments.epochs, verbose=0, callbacks=callbacks
    )

    clipped = seen.clipped_norm < seen.global_norm
    norms = seen.statistics["norm"].mean(0)
    print(f"test accuracy: {model.evaluate(x_test, y_test, verbose=0)[1]:.3f}")
    of_epochs = [f"{norm:.2f}" for norm in fitted.history["grad_norm"]]
    print("mean gradient norm of each epoch:", *of_epochs)
    print(f"clipped to norm 2: {clipped.sum()} of {len(clipped)} steps")
    largest = norms.argmax()
    print(f"largest mean norm: {norms[largest]:.2f} in {seen.variables[largest]}")
    print(f"see the gradients: tensorboard --logdir {arguments.log_dir}")


if __name__ == "__main__":
    main()
