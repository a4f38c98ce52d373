"""Treatments: what keeps a small CNN from exploding, each alone and some together.

One classifier of images, with weights drawn too large and a rate that is too high:
under plain SGD it blows up in its first steps. Each treatment that textbooks and
articles name changes one thing about that run, and some are put together. Asked is, for
each: does the run survive, what is its error on held-out images, when does its loss
explode first, and what does a step cost? Every number is a usual one, or that of the
untreated run.

    python examples/treatments.py [--quick] [--data NAME] [--log-dir DIR] [--out FOLDER]
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from keras.optimizers import SGD, Adam, schedules
from study import data, page, runs

from keras_gradwatch import callbacks, policies

# Standard deviation of the weights, in those of He's; rate of SGD.
GAIN, RATE = 2.0, 0.5
# Rows of a full batch, at most, for the memory's sake; each step of it takes long.
FULL, FULL_STEPS = 4096, 30
# Data: epochs, and seeds.
SIZES = {"digits": (10, 2), "photographs": (30, 2), "cifar10": (3, 3)}

# Each with its value for the best answer that is the same for every image.
LOSSES = {
    "cross-entropy": (keras.losses.CategoricalCrossentropy(from_logits=True), 2.302585),
    "squared error": (keras.losses.MeanSquaredError(), 0.09),  # all outputs 0.1
    "Huber": (keras.losses.Huber(delta=1.0), 0.045),
    "hinge": (keras.losses.CategoricalHinge(), 1.0),  # all outputs 0
}


def steps_down(rate, steps):
    """A tenth of the rate after each third of the steps."""
    thirds = [steps // 3, 2 * steps // 3]
    return schedules.PiecewiseConstantDecay(thirds, [rate, rate / 10, rate / 100])


def warm_up(rate, steps):
    """Up in a fifth of the steps, then down along a cosine."""
    up = max(steps // 5, 1)
    return schedules.CosineDecay(0.0, steps - up, warmup_target=rate, warmup_steps=up)


@dataclass(frozen=True)
class Setup:
    """How one network is made and trained; the defaults are the untreated run."""

    optimizer: type = SGD
    rate: float = RATE
    schedule: Callable | None = None  # made from the rate and the number of steps
    gain: float = GAIN
    batch: int = 32
    activation: str = "relu"
    pooling: type = layers.MaxPooling2D
    batch_norm: bool = False
    dropout: float = 0.0
    penalty: str | None = None  # on each kernel
    loss: str = "cross-entropy"
    clip: float | None = None  # the optimizer's own `global_clipnorm`
    policy: policies.Policy | None = None
    response: type | None = None  # a callback that protects


cosine, reduce_rate = schedules.CosineDecay, callbacks.ReduceLROnExplosion
clip, center = policies.ClipByGlobalNorm(1.0), policies.Centralize()
agc = policies.AdaptiveGradientClip(0.05, exclude=["head/"])
TREATMENTS = {
    "untreated": Setup(),
    "initialization: He": Setup(gain=1.0),
    f"rate: {RATE / 10:g}": Setup(rate=RATE / 10),
    "optimizer: Adam, the same rate": Setup(optimizer=Adam),
    "optimizer: Adam, its default rate": Setup(optimizer=Adam, rate=0.001),
    "batch: full": Setup(batch=FULL),
    "batch: 1": Setup(batch=1),
    "batch normalization": Setup(batch_norm=True),
    "clip: Keras's global_clipnorm=1": Setup(clip=1.0),
    "clip: ClipByGlobalNorm(1.0)": Setup(policy=clip),
    "clip: ClipByNorm(1.0)": Setup(policy=policies.ClipByNorm(1.0)),
    "clip: ClipByValue(0.1)": Setup(policy=policies.ClipByValue(0.1)),
    "clip: AdaptiveGradientClip(0.05)": Setup(policy=agc),
    "clip: AutoClip()": Setup(policy=policies.AutoClip()),
    "clip: ZClip()": Setup(policy=policies.ZClip()),
    "clip: AdaGC()": Setup(policy=policies.AdaGC()),
    "Centralize()": Setup(policy=center),
    "NormalizeCentered()": Setup(policy=policies.NormalizeCentered()),
    "ReduceLROnExplosion()": Setup(response=reduce_rate),
    "schedule: steps": Setup(schedule=steps_down),
    "schedule: cosine": Setup(schedule=cosine),
    "schedule: warm-up and cosine": Setup(schedule=warm_up),
    "L1, 0.0001": Setup(penalty="l1"),
    "L2, 0.001": Setup(penalty="l2"),
    "dropout, 0.3": Setup(dropout=0.3),
    "activation: sigmoid": Setup(activation="sigmoid"),
    "activation: tanh": Setup(activation="tanh"),
    "pooling: average": Setup(pooling=layers.AveragePooling2D),
    "loss: squared error": Setup(loss="squared error"),
    "loss: Huber": Setup(loss="Huber"),
    "loss: hinge": Setup(loss="hinge"),
    "GradWatch()": Setup(response=callbacks.GradWatch),
    "He + batch normalization": Setup(gain=1.0, batch_norm=True),
    "He + Adam, its default rate": Setup(gain=1.0, optimizer=Adam, rate=0.001),
    "batch normalization + global clip": Setup(batch_norm=True, policy=clip),
    "global clip + cosine": Setup(policy=clip, schedule=cosine),
    "Centralize + global clip": Setup(policy=policies.Chain([center, clip])),
    "NormalizeCentered + cosine": Setup(
        policy=policies.NormalizeCentered(), schedule=cosine
    ),
    "Centralize + ReduceLROnExplosion": Setup(policy=center, response=reduce_rate),
    "L2 + dropout + cosine": Setup(penalty="l2", dropout=0.3, schedule=cosine),
    "GradWatch + cosine": Setup(response=callbacks.GradWatch, schedule=cosine),
    "GradWatch + batch normalization": Setup(
        response=callbacks.GradWatch, batch_norm=True
    ),
}
FIRST_TOGETHER = "He + batch normalization"
QUICK = [
    "untreated",
    "initialization: He",
    "batch normalization",
    "clip: ClipByGlobalNorm(1.0)",
    "GradWatch()",
]


def network(setup, shape, steps):
    """Two convolutions and two dense layers, compiled, for images of `shape`."""

    def weights(name):  # He's normal weights, times the gain
        drawn = keras.initializers.VarianceScaling(2 * setup.gain**2, "fan_in")
        penalty = {"l1": keras.regularizers.L1(1e-4), "l2": keras.regularizers.L2(1e-3)}
        return {
            "name": name,
            "kernel_initializer": drawn,
            "kernel_regularizer": penalty.get(setup.penalty),
        }

    def after():
        norm = [layers.BatchNormalization()] if setup.batch_norm else []
        return [*norm, layers.Activation(setup.activation)]

    stack = [keras.Input(shape)]
    for filters, name in ((8, "conv_1"), (16, "conv_2")):
        stack += [layers.Conv2D(filters, 3, padding="same", **weights(name)), *after()]
        stack += [setup.pooling(2)]
    stack += [layers.Flatten(), layers.Dense(64, **weights("dense")), *after()]
    stack += [layers.Dropout(setup.dropout)] if setup.dropout else []
    model = keras.Sequential([*stack, layers.Dense(10, **weights("head"))], name="cnn")
    rate = setup.schedule(setup.rate, steps) if setup.schedule else setup.rate
    optimizer = setup.optimizer(rate, global_clipnorm=setup.clip)
    model.compile(optimizer, LOSSES[setup.loss][0])
    return model


def prepare(setup, dataset, epochs, seed, folder=None):
    """A network, what it is trained on, its protection, and the arguments of `fit`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    (x, y), test = dataset
    steps = epochs * -(-len(x) // 32)  # those of the untreated run
    if setup.batch == 1:
        steps = min(steps, len(x))
        x, y, epochs = x[:steps], y[:steps], 1
    elif setup.batch == FULL:
        x, y, steps, epochs = x[:FULL], y[:FULL], FULL_STEPS, FULL_STEPS
    model = network(setup, x.shape[1:], steps)
    used = [callbacks.GradientClipping(setup.policy)] if setup.policy else []
    if setup.response is callbacks.GradWatch:
        used.append(callbacks.GradWatch(folder, verbose=0))
    elif setup.response:
        used.append(setup.response(verbose=0))
    if folder and setup.response is not callbacks.GradWatch:  # which logs by itself
        used.append(callbacks.GradientTensorBoard(folder))
    return model, ((x, y), test), used, {"epochs": epochs, "batch_size": setup.batch}


def treat(setup, dataset, epochs, seed, folder=None):
    """Trains once, with TensorBoard logs in `folder`; returns an `Outcome`."""
    model, rows, used, options = prepare(setup, dataset, epochs, seed, folder)
    x, y = (part[:256] for part in rows[0])
    # Large weights and the penalty on them are in the loss before any step is made.
    untrained = float(model.compute_loss(x, y, model(x, training=False)))
    guess = max(LOSSES[setup.loss][1], untrained)
    return runs.train(model, rows, callbacks=used, guess=guess, **options)


def milliseconds(setup, dataset, epochs):
    """Time of a step of the same run, where nothing but its treatment watches it."""
    model, ((x, y), _), used, options = prepare(setup, dataset, epochs, seed=0)
    if setup.batch == FULL:  # two steps an epoch: one is timed by when the next begins
        x, y = np.concatenate([x, x]), np.concatenate([y, y])
        options = {"epochs": 4, "batch_size": len(x) // 2}
    clock = runs.Clock()
    model.fit(x, y, verbose=0, callbacks=[*used, clock], **options)
    return clock.ms


def summary(outcomes, ms, stock_ms):
    """What became of one treatment over all seeds: texts, and numbers for colours."""
    count = len(outcomes)
    survived = sum(o.survived for o in outcomes)
    errors = [o.test_error for o in outcomes]
    first = [o.first_explosion for o in outcomes if o.first_explosion is not None]
    when = f"{min(first)}–{max(first)}" if first else "–"
    cells = {
        "survived": f"{survived} of {count}",
        "held-out error": f"{np.mean(errors):.3f}",
        "worst seed": f"{max(errors):.3f}",
        "exploded": f"{len(first)} of {count}",
        "first explosion (step)": str(first[0]) if len(set(first)) == 1 else when,
        "steps": f"{len(outcomes[0].seen.steps):,}",
        "ms per step": f"{ms:.2f}",
        "relative to untreated": f"{ms / stock_ms:.2f}",
    }
    cost = np.clip(np.log2(ms / stock_ms) / 2, 0, 1)  # 1: four times as much
    return cells, (1 - survived / count, np.mean(errors), len(first) / count, cost)


def heatmap(results):
    """Treatment × outcome: the darker, the worse."""
    plt = page.pyplot()
    shown = [
        "survived",
        "held-out error",
        "first explosion (step)",
        "relative to untreated",
    ]
    figure, axes = plt.subplots(figsize=(8, 1.6 + 0.27 * len(results)))
    shades = np.array([shade for _, shade in results.values()])
    axes.imshow(shades, cmap="cividis_r", vmin=0, vmax=1, aspect="auto")
    for i, (cells, shade) in enumerate(results.values()):
        for j, column in enumerate(shown):
            colour = "white" if shade[j] > 0.5 else "black"
            axes.text(j, i, cells[column], color=colour, ha="center", va="center")
    axes.set_xticks(
        range(4),
        [
            "survived",
            "held-out\nerror",
            "first explosion\n(step)",
            "time of a step,\nrelative to untreated",
        ],
    )
    axes.set_yticks(range(len(results)), results)
    axes.xaxis.tick_top()
    axes.set_xlabel("outcome; the darker, the worse")
    axes.set_ylabel("treatment")
    if FIRST_TOGETHER in results:
        axes.axhline(list(results).index(FIRST_TOGETHER) - 0.5, color="white", lw=3)
    figure.tight_layout()
    return figure


def main():
    """Trains every treatment with every seed."""
    arguments = page.parse(__doc__, ["digits", "photographs"], ["cifar10"])
    epochs, seeds = (4, 1) if arguments.quick else SIZES[arguments.data]
    dataset = tuple(
        (x, np.eye(10, dtype="float32")[y]) for x, y in getattr(data, arguments.data)()
    )
    results, times = {}, {}
    for name in QUICK if arguments.quick else TREATMENTS:
        setup = TREATMENTS[name]
        folder = arguments.log_dir / re.sub(r"\W+", "_", name).strip("_")
        outcomes = [
            treat(setup, dataset, epochs, seed, None if seed else folder)
            for seed in range(seeds)
        ]
        times[name] = milliseconds(setup, dataset, epochs)
        results[name] = summary(outcomes, times[name], times["untreated"])
        print(name, *results[name][0].values(), sep="; ", file=sys.stderr, flush=True)
    again = milliseconds(Setup(), dataset, epochs) / times["untreated"]
    rows = [[name, *cells.values()] for name, (cells, _) in results.items()]
    head = ["treatment", *results["untreated"][0]]
    page.publish(
        arguments,
        [
            f"{arguments.data}: {len(dataset[0][0]):,} images for training, "
            f"{len(dataset[1][0]):,} held out; {epochs} epochs; seeds: {seeds}.",
            f"Untreated: SGD {RATE:g}, batches of 32, {GAIN:g} times He's weights.",
            "",
            *page.table(head, rows),
            "",
            "Control: measured again at the end, a step of the untreated run takes",
            f"{again:.2f} of its first time.",
        ],
        heatmap(results),
    )


if __name__ == "__main__":
    main()
