"""One run of a study and its outcome."""

import logging
import time
from dataclasses import dataclass

import keras
import numpy as np

from keras_gradwatch.callbacks import GradientHistory, GradWatch

# TensorFlow warns where one process makes many models.
logging.getLogger("tensorflow").setLevel(logging.ERROR)

# A loss this many times that of a network that knows nothing is an explosion.
EXPLODED = 10.0


@dataclass(frozen=True)
class Outcome:
    """What became of one run.

    Attributes:
        test_error: Share of the held-out rows that are not recognized; 1 where the
            predictions are not finite.
        survived: Whether the held-out error is less than half that of guessing.
        first_explosion: The first step whose loss is not below `EXPLODED` times that of
            guessing, or None.
        ms: Milliseconds a step, the median over the steps after the first epoch (of
            all, where there is but one).
        epochs: Dict of lists, what `fit` returned for each epoch.
        seen: `GradientHistory` of the run.
    """

    test_error: float
    survived: bool
    first_explosion: int | None
    ms: float
    epochs: dict
    seen: GradientHistory


class Clock(keras.callbacks.Callback):
    """Notes when each batch begins."""

    def __init__(self):
        super().__init__()
        self.epochs = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs.append([])

    def on_train_batch_begin(self, batch, logs=None):
        self.epochs[-1].append(time.perf_counter())

    @property
    def ms(self):
        # The first epoch holds the tracing.
        later = self.epochs[1:] or self.epochs
        steps = [np.diff(times) for times in later if len(times) > 1]
        return float(np.median(np.concatenate(steps))) * 1000 if steps else float("nan")


def train(model, data, epochs, batch_size=32, callbacks=(), guess=None, **options):
    """Trains a compiled classifier once.

    Args:
        model: The model; its outputs are logits or probabilities [N, classes].
        data: `(x, y), (x, y)`, for training and for the test; y holds class numbers,
            or one-hot rows.
        epochs: Number of epochs.
        batch_size: Rows of a batch.
        callbacks: For `fit`.
        guess: Loss of a network that knows nothing; default: ln(number of classes),
            that of the cross-entropy.
        options: Further arguments of `fit`.

    Returns:
        `Outcome`.
    """
    (x, y), (x_test, y_test) = data
    seen, clock = GradientHistory(sample_freq=10), Clock()
    done = model.fit(
        x,
        y,
        batch_size=batch_size,
        epochs=epochs,
        verbose=0,
        callbacks=[*callbacks, seen, clock],
        **options,
    )
    predicted = model.predict(x_test, batch_size=256, verbose=0)
    error = error_of(predicted, y_test)
    classes = predicted.shape[1]
    return Outcome(
        test_error=error,
        survived=error < 0.5 * (1 - 1 / classes),
        first_explosion=first_explosion(seen, guess or float(np.log(classes))),
        ms=clock.ms,
        epochs=done.history,
        seen=seen,
    )


def stock_and_watched(run, seeds, folder):
    """Runs each seed twice, and yields `("stock", results)`, `("watched", results)`.

    Args:
        run: Function of a seed, and of a `GradWatch` or None.
        seeds: Number of seeds.
        folder: Where the watched run of the first seed is logged; one is enough to
            look at.
    """
    yield "stock", [run(seed, None) for seed in range(seeds)]
    folders = [None if seed else folder for seed in range(seeds)]
    watches = [GradWatch(f, update_freq=5, verbose=0) for f in folders]
    yield "watched", [run(seed, watch) for seed, watch in enumerate(watches)]


def error_of(predicted, y):
    """Share of rows that are not recognized; 1 where any prediction is not finite."""
    if not np.isfinite(predicted).all():
        return 1.0
    y = y.argmax(1) if y.ndim > 1 else y
    return float((predicted.argmax(1) != y).mean())


def first_explosion(seen, guess):
    """The first step whose loss is not below `EXPLODED` times `guess`, or None.

    The norm of the gradient counts, too, where it is not finite.
    """
    over = ~(seen.loss < EXPLODED * guess) | ~np.isfinite(seen.global_norm)
    return int(seen.steps[np.argmax(over)]) if over.any() else None
