"""Two replicas: clipping that means the same as on one device, and one bad shard.

A small CNN on scikit-learn's digits under `MirroredStrategy` on TensorFlow, and under
`keras.distribution` on JAX: on the GPUs of this machine, or on its CPU split in two. Is
a gradient clipped as on one device? And what becomes of a run in which one replica gets
values that are NaN, in one batch of each epoch?

    python examples/distributed.py [--quick] [--log-dir DIR] [--out FOLDER]
"""

import contextlib
import os

import keras
import numpy as np
from keras import layers
from study import data, page

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
    )
    return model


# -- A clip ----------------------------------------------------------------------------


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


def clips(scope, x, y):
    """Rows of the first table: the first update under a clip at `CLIP`."""
    # Half of the classes have the wrong label: the replicas' gradients differ.
    y = np.where(np.arange(len(y)) % BATCH < BATCH // 2, y, 9 - y)
    ours = keras_gradwatch.callbacks.GradientClipping(global_clipnorm=CLIP)
    keras_own = {"global_clipnorm": CLIP}
    alone = contextlib.nullcontext
    found = {
        ("one device", "Keras's global_clipnorm"): first_update(
            alone, x, y, **keras_own
        ),
        ("replicas", "Keras's global_clipnorm"): first_update(scope, x, y, **keras_own),
        ("replicas", "GradientClipping"): first_update(scope, x, y, ours),
    }
    return [[*words, f"{norm:.4f}"] for words, norm in found.items()]


# -- A bad shard -----------------------------------------------------------------------


def train(scope, train_data, test_data, epochs, *callbacks):
    """Trains with a batch that is NaN on the last replica.

    Returns:
        `(cells of the row, losses [steps])`.
    """
    (x, y), (x_test, y_test) = train_data, test_data
    x = x.copy()
    x[(BAD + 1) * BATCH - 4 : (BAD + 1) * BATCH] = np.nan
    seen = keras_gradwatch.callbacks.GradientHistory()
    callbacks = [*callbacks, seen]
    with scope():
        model = network()
        model.fit(x, y, BATCH, epochs, shuffle=False, verbose=0, callbacks=callbacks)
        logits = model.predict(x_test, BATCH, verbose=0)
    error = (logits.argmax(1) != y_test).mean() if np.isfinite(logits).all() else 1.0
    broken = sum(bool(np.isnan(w).any()) for w in model.get_weights())
    cells = [f"{broken} of {len(model.weights)}", f"{error:.3f}"]
    return [*cells, int((~seen.applied).sum())], seen.loss


def shards(scope, everything, epochs, log_dir):
    """Rows of the second table, the losses by row, and the first event."""
    watch = keras_gradwatch.callbacks.GradWatch(log_dir, verbose=0)
    runs = {
        ("one device", "stock Keras"): (contextlib.nullcontext, []),
        ("replicas", "stock Keras"): (scope, []),
        ("replicas", "GradWatch()"): (scope, [watch]),
    }
    rows, losses = [], {}
    for words, (where, callbacks) in runs.items():
        cells, loss = train(where, *everything, epochs, *callbacks)
        rows.append([*words, *cells])
        losses[", ".join(words)] = loss
    return rows, losses, watch.events[0].message


def draw(losses):
    """The loss of every step; where it is NaN the line ends."""
    figure, axes = page.pyplot().subplots(figsize=(8, 3.5), layout="constrained")
    for (name, loss), style in zip(losses.items(), ("k:", "C1--", "C0-"), strict=True):
        axes.plot(loss, style, label=name)
    axes.axvline(BAD, color="grey", linewidth=0.8, label="the first batch with NaN")
    axes.set(xlabel="step", ylabel="loss of the step", yscale="log")
    axes.legend()
    return figure


def main():
    """Compares the clips, then trains alone and watched."""
    arguments = page.parse(__doc__, ["digits"])
    makers = {"tensorflow": tensorflow_replicas, "jax": jax_replicas}
    if keras.config.backend() not in makers:
        raise SystemExit(
            "Keras has no replicas on PyTorch: choose another KERAS_BACKEND"
        )
    scope, count = makers[keras.config.backend()]()
    # Whole batches: JAX cannot split others.
    (x, y), test = [
        [part[: len(part) // BATCH * BATCH] for part in pair] for pair in data.digits()
    ]
    rows = clips(scope, x, y)
    epochs = 1 if arguments.quick else 10
    bad, losses, event = shards(scope, ((x, y), test), epochs, arguments.log_dir)
    head = ["where", "what"]
    lines = [
        f"Replicas: {count}. The norm of the first update over the learning rate, if",
        f"the gradient is clipped to {CLIP}:",
        "",
        *page.table([*head, "first update"], rows),
        "",
        f"Epochs: {epochs}. Batch {BAD} of each epoch contains NaN on one replica",
        "only:",
        "",
        *page.table([*head, "variables with NaN", "test error", "skipped"], bad),
        "",
        "The first event:",
        "",
        f"    {event}",
    ]
    page.publish(arguments, lines, draw(losses))


if __name__ == "__main__":
    main()
