"""Outliers in the targets: mean squared error against Huber loss.

Asked: where one training target in twenty has lost its decimal point, and so is ten or a
hundred times too large, what do the loss, the learning rate's schedule and L2 do for a
regression, and does watching it help?

Compared: linear regression and a net of two hidden layers of 32 ReLU units; the mean
squared error and the Huber loss (smooth L1, delta 1); a rate that is constant, falls in
steps, or as a cosine; with and without L2; each by stock Keras and under `GradWatch()`.
Beside them, what linear regression comes to when it is solved without a learning rate.

Judged on held-out rows that have no outliers, by the mean squared error in units of
their variance: 1 is what predicting the mean would have. The generalization gap is the
held-out loss minus the training loss, in the loss that was trained. Training rows have
outliers in it, held-out ones none; the clean gap has none in both, by the squared error.

    python examples/linear_regression_losses.py [--quick] [--data NAME] [--log-dir DIR] [--out FOLDER]
"""  # noqa: E501

from functools import partial
from typing import NamedTuple

import keras
import numpy as np
from keras import layers
from sklearn.datasets import load_diabetes
from sklearn.linear_model import HuberRegressor, LinearRegression
from study import page, runs

from keras_gradwatch.callbacks import GradientHistory

RATE, L2, BATCH = 0.05, 0.01, 32
LOSSES = {
    "squared": keras.losses.MeanSquaredError(),
    "Huber": keras.losses.Huber(delta=1.0),
}
# Schedule and L2.
TREATMENTS = (("constant", 0.0), ("step", 0.0), ("cosine", 0.0), ("constant", L2))
# What has no learning rate: linear regression as scikit-learn solves it.
SOLVERS = {
    "squared": LinearRegression(),
    "Huber": HuberRegressor(alpha=0.0, max_iter=1000),
}
WHO = {"stock": {"ls": "-", "marker": "o"}, "watched": {"ls": "--", "marker": "x"}}
# Okabe and Ito's colours, which all readers can tell apart.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")


class Setting(NamedTuple):
    """One row of a table."""

    model: str
    loss: str
    schedule: str = "constant"
    l2: float = 0.0
    factor: int = 10  # what a spoiled target is multiplied by


class Result(NamedTuple):
    """What became of one run."""

    held_out: float  # mean squared error on clean rows; inf where it is not finite
    gap: float
    clean_gap: float
    norm: float  # the largest that is finite
    skipped: float  # fractions of the steps
    held: float


def rows(name):
    """All rows: inputs [N, 10], and targets [N] that are above zero or nearly all."""
    if name == "diabetes":
        return load_diabetes(return_X_y=True, scaled=False)
    random = np.random.default_rng(1234)
    x, weights = random.normal(size=(442, 10)), random.normal(size=10)
    noise = 0.5 * random.normal(size=442)
    return x, 150 + 75 * (x @ weights / np.linalg.norm(weights) + noise)


def split(name, factor, seed):
    """`x`, spoiled and clean targets for training; `x` and targets that are held out.

    All are standardized by the training rows as they were before they were spoiled.
    """
    x, y = rows(name)
    random = np.random.default_rng(seed)
    test, train = np.split(random.permutation(len(x)), [len(x) // 4])
    spoiled = y.copy()
    spoiled[random.choice(train, len(train) // 20, replace=False)] *= factor
    x = (x - x[train].mean(axis=0)) / x[train].std(axis=0)
    shift, scale = y[train].mean(), y[train].std()
    spoiled, y = (((t - shift) / scale)[:, None] for t in (spoiled, y))
    parts = x[train], spoiled[train], y[train], x[test], y[test]
    return tuple(part.astype("float32") for part in parts)


def compiled(setting, inputs, steps, seed):
    """The model of a setting, with SGD."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    penalty = keras.regularizers.L2(setting.l2) if setting.l2 else None
    units = (32, 32) if setting.model == "net" else ()
    hidden = [layers.Dense(n, "relu", kernel_regularizer=penalty) for n in units]
    head = layers.Dense(1, kernel_regularizer=penalty)
    model = keras.Sequential([keras.Input((inputs,)), *hidden, head], name="regression")
    schedules = keras.optimizers.schedules
    rate = {
        "constant": RATE,
        "step": schedules.PiecewiseConstantDecay(
            [steps // 2, 3 * steps // 4], [RATE, RATE / 10, RATE / 100]
        ),
        "cosine": schedules.CosineDecay(RATE, steps),
    }[setting.schedule]
    model.compile(keras.optimizers.SGD(rate), LOSSES[setting.loss])
    return model


def train(name, setting, epochs, seed, watch):
    """`Result` of one run, watched where there is a `watch`."""
    x, spoiled, clean, x_test, y_test = split(name, setting.factor, seed)
    steps = epochs * -(-len(x) // BATCH)
    model, seen = compiled(setting, x.shape[1], steps, seed), GradientHistory(50)
    callbacks = [seen] if watch is None else [watch, seen]
    model.fit(x, spoiled, BATCH, epochs, verbose=0, callbacks=callbacks)
    fitted, predicted = (
        keras.ops.convert_to_numpy(model(part)) for part in (x, x_test)
    )
    loss = LOSSES[setting.loss]  # without the penalty
    held_out = squared(y_test, predicted)
    norms = seen.global_norm[np.isfinite(seen.global_norm)]
    return Result(
        held_out if np.isfinite(held_out) else np.inf,
        float(loss(y_test, predicted)) - float(loss(spoiled, fitted)),
        held_out - squared(clean, fitted),
        float(norms.max(initial=0)),
        float(1 - seen.applied.mean()),
        float(seen.held.mean()),
    )


def squared(y, predicted):
    """The mean squared error."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.mean((y.astype("float64") - predicted) ** 2))


def solved(name, setting, seed):
    """Held-out error of what scikit-learn solves."""
    x, spoiled, _, x_test, y_test = split(name, setting.factor, seed)
    found = SOLVERS[setting.loss].fit(x, spoiled[:, 0])
    return squared(y_test[:, 0], found.predict(x_test))


def median(results, field):
    """The median of a field over the seeds, as a cell of a table."""
    return f"{np.median([getattr(result, field) for result in results]):.3g}"


def survived(errors):
    """How many are better than predicting the mean, as a cell of a table."""
    return f"{sum(error < 1 for error in errors)} of {len(errors)}"


def tables(found, name, seeds):
    """The lines of both tables; `found` is a dict of (setting, run) to results."""
    treatments, sizes = [], []
    # By the size of the outliers; otherwise in the order in which they were made.
    for (setting, who), results in sorted(found.items(), key=lambda f: f[0][0].factor):
        model, loss, schedule, l2, factor = setting
        if (schedule, l2) == ("constant", 0):
            first = [model, loss, f"× {factor}"]
            shares = [np.mean([r[i] for r in results]) for i in (-2, -1)]
            row = [who, median(results, "held_out")]
            row += [survived([r.held_out for r in results]), median(results, "norm")]
            sizes.append(first + row + [f"{share:.0%}" for share in shares])
            if (model, who) == ("linear", "watched"):
                errors = [solved(name, setting, seed) for seed in range(seeds)]
                row = ["solved", f"{np.median(errors):.3g}", survived(errors)]
                sizes.append(first + row + ["–", "–", "–"])
        if factor == 10 and who == "stock":
            pair = [found[setting, who] for who in WHO]
            fields = ("held_out", "gap", "clean_gap")
            cells = [median(results, field) for field in fields for results in pair]
            treatments.append([model, loss, schedule, f"{l2:g}", *cells])
    both = [
        f"{what}, {who}" for what in ("held-out", "gap", "clean gap") for who in WHO
    ]
    end = ["held-out", "survived", "largest norm", "skipped", "held"]
    return [
        f"Treatments, outliers × 10; medians of {seeds} seed(s) on {name}.",
        "",
        *page.table(["model", "loss", "schedule", "L2", *both], treatments),
        "",
        "The size of the outliers, constant rate, no L2; × 1 has none.",
        "",
        *page.table(["model", "loss", "spoiled", "run", *end], sizes),
    ]


def draw(found):
    """Held-out error by the size of the outliers, and by treatment."""
    plt = page.pyplot()
    plt.rcParams.update({"font.size": 11})
    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 5), width_ratios=(1, 1.2))
    errors = {key: np.median([r.held_out for r in f]) for key, f in found.items()}
    kinds = list(dict.fromkeys(s[:2] for s, _ in found))
    factors = sorted({s.factor for s, _ in found})
    treatments = list(dict.fromkeys(s[2:4] for s, _ in found))
    lines = [(*kind, who) for kind in kinds for who in WHO]
    for model, loss, who in lines:
        own = [errors[Setting(model, loss, factor=f), who] for f in factors]
        style = {"color": COLOURS[kinds.index((model, loss))], "lw": 2, **WHO[who]}
        left.plot(factors, own, label=f"{model}, {loss}, {who}", **style)
    left.axhline(1, color="black", lw=1, ls=":")
    left.set(xscale="log", yscale="log", xlabel="factor of the spoiled targets")
    left.set(ylabel="held-out mean squared error", title="constant rate, no L2")
    left.set_xticks(factors, [f"× {f}" for f in factors])
    left.legend(fontsize=9)
    cells = [
        [errors[Setting(m, k, *t), who] for t in treatments] for m, k, who in lines
    ]
    names = [f"{schedule}, L2" if l2 else schedule for schedule, l2 in treatments]
    # From 0.1 (bright) to 100 (dark), on a log scale.
    shades = np.clip((2 - np.log10(cells)) / 3, 0, 1)
    page.heatmap(right, cells, [", ".join(line) for line in lines], names, shades)
    right.set_title("held-out mean squared error, spoiled × 10")
    figure.tight_layout()
    return figure


def main():
    """Trains all, and publishes two tables and the plot."""
    arguments = page.parse(__doc__, shipped=("diabetes", "linear"))
    seeds, epochs = (1, 10) if arguments.quick else (2, 40)
    kinds = [(model, loss) for model in ("linear", "net") for loss in LOSSES]
    plan = [Setting(*kind, *how) for kind in kinds for how in TREATMENTS]
    plan += [Setting(*kind, factor=factor) for kind in kinds for factor in (1, 100)]
    if arguments.quick:
        plan = [Setting(*kind) for kind in kinds[:3]]
    found = {}
    for setting in plan:
        run = partial(train, arguments.data, setting, epochs)
        folder = arguments.log_dir / "_".join(map(str, setting))
        for who, results in runs.stock_and_watched(run, seeds, folder):
            found[setting, who] = results
    lines = tables(found, arguments.data, seeds)
    page.publish(arguments, lines, draw(found))


if __name__ == "__main__":
    main()
