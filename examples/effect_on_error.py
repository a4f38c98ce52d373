"""What explosion does to the training error of a digit classifier.

Asked: how do training error and test accuracy of a small classifier (three hidden
layers of 64 ReLU units, ten digits) change as the initial weights and the learning rate
rise, and which optimizers feel it?

Compared, each from the same weights, by stock Keras and under `GradWatch()`:

- mini-batch SGD over 10 epochs, its kernels with 1 to 8 times the standard deviation of
  He initialization (the gain), and learning rates from 0.01 to 1;
- plain gradient descent on the full batch, SGD with momentum, Adam, and L-BFGS: SciPy's
  on the same loss and gradients. It has no learning rate, and nothing watches it.

Error is the fraction of all training rows that are not recognized after a pass over them,
1 where outputs are not finite. SciPy's gradients are taken with TensorFlow.

    python examples/effect_on_error.py [--quick] [--data NAME] [--log-dir DIR] [--out FOLDER]
"""  # noqa: E501

from functools import partial
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from keras.optimizers import SGD, Adam
from study import data, lbfgs, page, runs

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
# Ordinary rates, the same at every gain; none was searched for.
OPTIMIZERS = {
    "SGD 0.01": partial(SGD, 0.01),
    "SGD 0.1": partial(SGD, 0.1),
    "SGD 1": partial(SGD, 1.0),
    "gradient descent 0.1": partial(SGD, 0.1),
    "SGD 0.1, momentum 0.9": partial(SGD, 0.1, momentum=0.9),
    "Adam 0.001": partial(Adam, 0.001),
    "L-BFGS": None,
}
GRID, SIDE_BY_SIDE = list(OPTIMIZERS)[:3], list(OPTIMIZERS)[3:]
FULL_BATCH = ("gradient descent 0.1", "L-BFGS")
SHOWN = (1, 2, 3, 5, 10, 30, 100)  # the passes after which the tables have the error
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#000000")  # told apart by all readers


class Result(NamedTuple):
    """What became of one run."""

    errors: list  # of all training rows, after each pass over them
    accuracy: float  # on the test rows, at the end
    norm: float  # of the gradient in the first step


def network(shape, gain, seed, optimizer):
    """A compiled classifier; `gain` multiplies the He deviation of its kernels."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)

    def dense(units, activation=None):
        kernel = keras.initializers.VarianceScaling(2.0 * gain**2)
        return layers.Dense(units, activation, kernel_initializer=kernel)

    hidden = [dense(64, "relu") for _ in range(3)]
    stack = [keras.Input(shape), layers.Flatten(), *hidden, dense(10)]
    model = keras.Sequential(stack, name="digits")
    model.compile(optimizer, LOSS)
    return model


def train(digits, gain, name, passes, seed, watch):
    """`Result` of one run with the optimizer of that name."""
    (x, y), (x_test, y_test) = digits
    make = OPTIMIZERS[name]
    model = network(x.shape[1:], gain, seed, make() if make else "sgd")
    errors = []

    def error(images, classes):
        return runs.error_of(keras.ops.convert_to_numpy(model(images)), classes)

    def after_pass(*_):
        errors.append(error(x, y))

    if make is None:
        objective = lbfgs.Objective(model, LOSS, x, y)
        lbfgs.fit(objective, passes, after_pass)
        return Result(errors, 1 - error(x_test, y_test), objective.norms[0])
    size = len(x) if name in FULL_BATCH else 32
    told = keras.callbacks.LambdaCallback(on_epoch_end=after_pass)
    callbacks = [told] if watch is None else [watch, told]
    done = runs.train(model, digits, passes, size, callbacks)
    return Result(errors, 1 - done.test_error, float(done.seen.global_norm[0]))


def compare(digits, gains, names, lengths, seeds, log_dir):
    """Dict of (gain, optimizer, run) to a list of `Result`s, one for each seed."""
    found = {}
    for gain, name in [(gain, name) for gain in gains for name in names]:
        run = partial(train, digits, gain, name, lengths[name])
        if OPTIMIZERS[name] is None:
            found[gain, name, "stock"] = [run(seed, None) for seed in range(seeds)]
            continue
        folder = log_dir / f"gain {gain} {name}".replace(",", "").replace(" ", "_")
        for who, results in runs.stock_and_watched(run, seeds, folder):
            found[gain, name, who] = results
    return found


def mean_errors(results, passes):
    """Mean over the seeds after each pass; a run that ended early stays as it was."""
    padded = [r.errors + [r.errors[-1]] * (passes - len(r.errors)) for r in results]
    return np.mean([errors[:passes] for errors in padded], axis=0)


def table(found, lengths):
    """Lines of the table of what `compare` has found."""
    shown = [n for n in SHOWN if n <= max(lengths[name] for _, name, _ in found)]
    rows = []
    for (gain, name, who), results in found.items():
        errors = mean_errors(results, lengths[name])
        cells = [f"{errors[n - 1]:.3f}" if n <= len(errors) else "–" for n in shown]
        norm, accuracy = (np.mean([r[i] for r in results]) for i in (2, 1))
        # Less than half the error of guessing, as everywhere in the studies.
        alive = f"{sum(r.accuracy > 0.55 for r in results)} of {len(results)}"
        row = [gain, name, who, f"{norm:.3g}", *cells, f"{accuracy:.3f}", alive]
        rows.append(row)
    head = ["gain", "optimizer", "run", "first norm"]
    head += [f"error after {n}" for n in shown]
    return page.table([*head, "test accuracy", "survived"], rows)


def plot(axis, curves, lengths, names, title):
    """Training error by pass; `curves`: list of (name, run, optimizer, results)."""
    for name, who, optimizer, results in curves:
        errors = mean_errors(results, lengths[optimizer])
        style = {"color": COLOURS[names.index(name)], "lw": 2, "marker": "."}
        style |= {"ls": "-" if who == "stock" else "--", "label": f"{name}, {who}"}
        axis.plot(range(1, len(errors) + 1), errors, **style)
    axis.set(ylim=(-0.02, 1.02), title=title, ylabel="training error")
    axis.set_xlabel("passes over the training data")
    axis.grid(alpha=0.3)


def draw(grid, side_by_side, lengths):
    """Test accuracy of SGD by gain and rate; error by pass, by gain and optimizer."""
    plt = page.pyplot()
    plt.rcParams.update({"font.size": 11})
    gains, rates = (list(dict.fromkeys(key[i] for key in grid)) for i in (0, 1))
    figure, axes = plt.subplots(2, 3, figsize=(16, 9))
    for axis, who in zip(axes[0], ("stock", "watched"), strict=False):
        values = [[grid[gain, name, who] for name in rates] for gain in gains]
        values = np.mean([[[r.accuracy for r in c] for c in row] for row in values], -1)
        page.heatmap(axis, values.round(2), gains, rates)
        axis.set(xlabel="learning rate", ylabel="gain of the kernels")
        axis.set_title(f"mini-batch SGD, {who}: test accuracy")
    names = [f"gain {gain}" for gain in gains]
    middle = rates[len(rates) // 2]
    curves = [(f"gain {g}", w, n, r) for (g, n, w), r in grid.items() if n == middle]
    plot(axes[0, 2], curves, lengths, names, f"{middle}: error")
    compared = list(dict.fromkeys(key[0] for key in side_by_side))
    for axis, gain in zip(axes[1], compared, strict=False):
        curves = [(n, w, n, r) for (g, n, w), r in side_by_side.items() if g == gain]
        plot(axis, curves, lengths, SIDE_BY_SIDE, f"optimizers, gain {gain}: error")
        axis.set_xscale("log")
    axes[0, 2].legend(fontsize=9)
    axes[1, 2].legend(*axes[1, 0].get_legend_handles_labels(), loc="center")
    for axis in axes[1, len(compared) :]:
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def main():
    """Trains all, and publishes two tables and the plot."""
    arguments = page.parse(__doc__, shipped=("digits",), downloaded=("mnist",))
    gains, rates, compared, optimizers = (1, 2, 4, 8), GRID, (1, 8), SIDE_BY_SIDE
    seeds, epochs, passes = 3, 10, 100
    if arguments.quick:
        gains, rates, compared, optimizers = (8,), GRID[1:2], (8,), FULL_BATCH
        seeds, epochs, passes = 1, 3, 30
    digits = getattr(data, arguments.data)()
    # Ten steps train nothing: the full batch gets ten times as many passes.
    lengths = {n: passes if n in FULL_BATCH else epochs for n in OPTIMIZERS}
    run = partial(compare, digits, lengths=lengths, seeds=seeds)
    grid = run(gains, rates, log_dir=arguments.log_dir / "grid")
    others = run(compared, optimizers, log_dir=arguments.log_dir / "optimizers")
    lines = [
        f"Mini-batch SGD on {arguments.data}: {len(digits[0][0])} training rows, "
        f"batches of 32, {epochs} epochs; means of {seeds} seed(s).",
        "",
        *table(grid, lengths),
        "",
        f"Optimizers: {passes} passes over the data on the full batch, {epochs} on "
        "batches of 32.",
        "",
        *table(others, lengths),
    ]
    page.publish(arguments, lines, draw(grid, others, lengths))


if __name__ == "__main__":
    main()
