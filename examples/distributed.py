"""Two replicas: clipping that means the same as on one device, and one bad shard.

A small CNN on scikit-learn's digits under `MirroredStrategy` on TensorFlow, and under
`keras.distribution` on JAX: on the GPUs of this machine, or on its CPU split in two.
Shown are the first update under a clip, and a run in which one replica sees a batch of
NaN.

    python examples/distributed.py [--log-dir DIR] [--epochs N]
"""

import argparse
import contextlib
import os

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_digits

import keras_gradwatch

BATCH = 64  # of all replicas together
CLIP = 0.1
BAD = 5  # the number of the batch, from 0, whose last rows are NaN


def tensorflow_replicas():
    """The scope of one replica a GPU, or of two on the CPU, and their number."""
    import tensorflow as tf

    if len(tf.config.list_physical_devices("GPU")) > 1:
        strategy = tf.distribute.MirroredStrategy()
    else:
        (cpu, *_) = tf.config.list_physical_devices("CPU")
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(cpu, halves)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return strategy.scope, strategy.num_replicas_in_sync


def jax_replicas():
    """The scope of one replica a GPU, or of two on the CPU, and their number."""
    # Read when JAX looks for its devices, which it has not done yet.
    split = "--xla_force_host_platform_device_count=2"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {split}"
    distribution = keras.distribution.DataParallel()
    return distribution.scope, distribution.num_model_replicas


def data():
    """Digits as images [1792, 8, 8, 1] from 0 to 1, whole batches only."""
    x, y = load_digits(return_X_y=True)
    count = len(x) // BATCH * BATCH
    return (x[:count] / 16).astype("float32").reshape(-1, 8, 8, 1), y[:count]


def network(**clip):
    """A CNN with BatchNorm."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, name="conv"),
            layers.BatchNormalization(name="normalization"),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, name="logits"),
        ],
        name="cnn",
    )
    model.compile(
        keras.optimizers.SGD(0.1, **clip),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def first_update(scope, x, y, *callbacks, **clip):
    """The norm of the first step's update, over the learning rate."""
    with scope():
        model = network(**clip)
        before = model.get_weights()
        model.fit(x[:BATCH], y[:BATCH], BATCH, verbose=0, callbacks=list(callbacks))
    trained = [w.trainable for w in model.weights]
    pairs = zip(model.get_weights(), before, trained, strict=True)
    moved = [np.sum((a - b) ** 2) for a, b, counts in pairs if counts]
    return np.sqrt(np.sum(moved)) / 0.1


def compare_clips(scope, x, y):
    """Prints the first update of a clip at `CLIP`, on one device and on replicas."""
    # Half of the classes have the wrong label: the replicas' gradients differ.
    y = np.where(np.arange(len(y)) % BATCH < BATCH // 2, y, 9 - y)
    ours = keras_gradwatch.callbacks.GradientClipping(global_clipnorm=CLIP)
    rows = {
        "one device, Keras's global_clipnorm": first_update(
            contextlib.nullcontext, x, y, global_clipnorm=CLIP
        ),
        "replicas, Keras's global_clipnorm": first_update(
            scope, x, y, global_clipnorm=CLIP
        ),
        "replicas, GradientClipping": first_update(scope, x, y, ours),
    }
    print(f"norm of the first update, clipped to {CLIP} (over the learning rate):")
    for name, norm in rows.items():
        print(f"  {name:<37}{norm:.4f}")


def train(scope, x, y, epochs, *callbacks):
    """Trains with a batch that is NaN on the last replica, and says what came out."""
    x = x.copy()
    x[(BAD + 1) * BATCH - 4 : (BAD + 1) * BATCH] = np.nan
    callbacks = list(callbacks)
    clean = np.arange(len(x)) // BATCH != BAD
    with scope():
        model = network()
        model.fit(x, y, BATCH, epochs, shuffle=False, verbose=0, callbacks=callbacks)
        loss, accuracy = model.evaluate(x[clean], y[clean], BATCH, verbose=0)
    print(f"  loss {loss:.3f}, accuracy {accuracy:.3f}")


def main():
    """Compares the clips, then trains alone and watched."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log-dir", default="logs/distributed")
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    makers = {"tensorflow": tensorflow_replicas, "jax": jax_replicas}
    if keras.config.backend() not in makers:
        print("Keras has no replicas on PyTorch: set KERAS_BACKEND to another one.")
        return
    scope, count = makers[keras.config.backend()]()
    print(f"replicas: {count}")
    x, y = data()
    compare_clips(scope, x, y)
    print(f"\nbatch {BAD} of each epoch holds NaN, and one replica gets it\nalone:")
    train(scope, x, y, arguments.epochs)
    watch = keras_gradwatch.callbacks.GradWatch(arguments.log_dir, verbose=0)
    print("with GradWatch:")
    train(scope, x, y, arguments.epochs, watch)
    print(f"  {watch.events[0].message}")
    print(f"\nsee the gradients: tensorboard --logdir {arguments.log_dir}")


if __name__ == "__main__":
    main()
