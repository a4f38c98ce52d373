"""ResNet-50 on MNIST: with and without protection, exploding and vanishing gradients.

ResNet-50 is trained with SGD and momentum, at a usual rate and at 100 times that, each
with several seeds: by stock Keras, with a clip of the global norm at several thresholds,
and with `GradWatch` at its defaults. Asked are accuracy and how far it differs between
seeds, the norm of the gradient by depth, and what becomes of the ratio of the first
kernel's norm to the last one's: above what it was at first, gradients explode on their
way back through the network; below, they vanish.

    python examples/resnet50_mnist.py [--quick] [--data NAME] [--log-dir DIR] [--out FOLDER]
"""  # noqa: E501

import itertools
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers
from study import data, page, runs

from keras_gradwatch import callbacks

# Of batch normalization: 0.99 takes several hundred steps to forget where it began.
MOMENTUM = 0.9


@dataclass(frozen=True)
class Size:
    """How much is trained.

    Attributes:
        blocks: Residual blocks of each of the four stages; (3, 4, 6, 3): ResNet-50.
        width: Filters of the first stage; 64: ResNet-50.
        epochs: Number of epochs.
        seeds: Number of runs of each kind.
        limits: Thresholds of the clip.
        rate: The usual learning rate.
        images: Number of images to train on, and as many for the test; None: all.
    """

    blocks: tuple
    width: int
    epochs: int
    seeds: int
    limits: tuple
    rate: float = 0.05
    images: int | None = None

    @property
    def rates(self):
        """Name to learning rate."""
        return {"usual": self.rate, "exploding": 100 * self.rate}


QUICK = Size((1,), 8, 4, 1, ())
# What a core traces and trains 30 times in less than ten minutes: not as deep.
SHIPPED = Size((1, 1, 1, 1), 8, 6, 3, (1.0, 0.1, 0.01))
# ResNet-50 itself, on a part of MNIST: about 40 minutes on two cores.
WHOLE = Size((3, 4, 6, 3), 64, 6, 3, (1.0,), 0.01, 2048)


def square(images):
    """Digits of 8×8 pixels enlarged, or of 28×28 with a margin, to 32×32."""
    if images.shape[1] == 8:
        return images.repeat(4, 1).repeat(4, 2)
    return np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)])


def network(size):
    """ResNet-50 of Keras; or one that is built alike, thinner or not as deep."""
    if size == WHOLE:
        model = keras.applications.ResNet50(
            weights=None,
            input_shape=(32, 32, 1),
            classes=10,
            classifier_activation=None,
        )
        for layer in model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.momentum = MOMENTUM
        return model
    inputs = keras.Input((32, 32, 1))
    x = convolution(inputs, size.width, 7, 2, "conv1")
    x = layers.MaxPooling2D(3, 2, "same")(x)
    for stage, blocks in enumerate(size.blocks):
        for block in range(blocks):
            name = f"conv{stage + 2}_block{block + 1}"
            strides = 2 if stage > 0 and block == 0 else 1
            x = bottleneck(x, size.width * 2**stage, strides, block == 0, name)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, name="predictions")(x))


def bottleneck(x, width, strides, project, name):
    """Convolutions 1×1, 3×3 and 1×1, and a way around them."""
    around = x
    if project:
        around = convolution(x, 4 * width, 1, strides, f"{name}_0", False)
    x = convolution(x, width, 1, strides, f"{name}_1")
    x = convolution(x, width, 3, 1, f"{name}_2")
    x = convolution(x, 4 * width, 1, 1, f"{name}_3", False)
    return layers.ReLU()(layers.Add()([around, x]))


def convolution(x, filters, kernel, strides, name, relu=True):
    """A convolution and a batch normalization."""
    x = layers.Conv2D(
        filters, kernel, strides, "same", use_bias=False, name=f"{name}_conv"
    )(x)
    x = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(x)
    return layers.ReLU()(x) if relu else x


def treatments(size, log_dir):
    """Name to a list of callbacks; what is watched is logged below `log_dir`."""
    clips = {
        f"clip at {limit:g}": [callbacks.GradientClipping(global_clipnorm=limit)]
        for limit in size.limits
    }
    watch = callbacks.GradWatch(log_dir, update_freq=5, verbose=0)
    return {"stock": [], **clips, "GradWatch()": [watch]}


def train(images, size, rate, seed, mine):
    """One run; returns an `Outcome`."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    model = network(size)
    model.compile(
        keras.optimizers.SGD(rate, 0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return runs.train(model, images, size.epochs, callbacks=mine)


def norms_by_depth(seen):
    """Norm of the gradient of each kernel on the way through the network.

    The ways around the blocks (the first kernel of each stage) are left out.

    Args:
        seen: `GradientHistory`.

    Returns:
        float32 array [T, kernels].
    """
    on_the_way = [
        i
        for i, path in enumerate(seen.variables)
        if path.endswith("kernel") and "_0_conv" not in path
    ]
    return seen.statistics["norm"][:, on_the_way]


def first_to_last(seen):
    """Norm of the first kernel's gradient over that of the last one's, float32 [T].

    Where nothing arrives at the first one it is 0, even if the last one has none.
    """
    norms = norms_by_depth(seen)
    return norms[:, 0] / np.maximum(norms[:, -1], np.finfo("float32").tiny)


def at_the_end(values, outcome):
    """The median of the steps of the last epoch, along the first axis."""
    steps = len(values) // len(outcome.epochs["loss"])
    return np.median(values[-steps:], axis=0)


def spread(values):
    """Standard deviation of a sample; 0 of a single value."""
    return np.std(values, ddof=1) if len(values) > 1 else 0.0


def row(setting, name, outcomes):
    """The cells of the runs of one kind, one run for each seed."""
    accuracies = [1 - o.test_error for o in outcomes]
    ratios = [first_to_last(o.seen) for o in outcomes]
    ends = [at_the_end(r, o) for r, o in zip(ratios, outcomes, strict=True)]
    firsts = [at_the_end(norms_by_depth(o.seen)[:, 0], o) for o in outcomes]
    return [
        setting,
        name,
        f"{np.mean(accuracies):.3f}",
        f"{spread(accuracies):.3f}" if len(outcomes) > 1 else "one run",
        f"{sum(o.survived for o in outcomes)} of {len(outcomes)}",
        f"{np.max([o.seen.global_norm for o in outcomes]):.2g}",
        f"{np.median([r[0] for r in ratios]):.2g}",
        f"{np.median([r.max() for r in ratios]):.2g}",
        f"{np.median(ends):.2g}",
        f"{np.median(firsts):.2g}",
    ]


HEAD = [
    "rate",
    "treatment",
    "accuracy, mean",
    "deviation",
    "survived",
    "largest norm",
    "first/last: at first",
    "largest",
    "at the end",
    "first kernel at the end",
]


def draw(outcomes, rates):
    """Norm by depth, first-to-last ratio over time, and accuracy by treatment."""
    plt = page.pyplot()
    figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    names = [name for rate, name in outcomes if rate == "exploding"]
    styles = ["-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 3))]
    stock = outcomes["exploding", "stock"][0]
    norms = norms_by_depth(stock.seen)
    depth = np.arange(1, norms.shape[1] + 1)
    axes[0].plot(depth, norms[0], "k-", label="before the first update")
    for style, name in zip(styles, names, strict=False):
        found = outcomes["exploding", name]
        end = at_the_end(norms_by_depth(found[0].seen), found[0])
        what = f"{name}, last epoch" + ("" if end.any() else ": 0")
        axes[0].plot(depth, end, linestyle=style, label=what)
        ratios = np.median([first_to_last(o.seen) for o in found], axis=0)
        smooth = [np.median(ratios[max(0, t - 9) : t + 1]) for t in range(len(ratios))]
        axes[1].plot(smooth, linestyle=style, label=name)
    axes[0].set(yscale="log", xlabel="kernel, from the first to the last")
    axes[0].set_ylabel("norm of the gradient")
    axes[0].set_title("exploding rate, first seed")
    axes[1].set_title("exploding rate, median of the seeds")
    axes[0].legend(fontsize=7)
    axes[1].axhline(first_to_last(stock.seen)[0], color="0.8", zorder=0)
    axes[1].set(yscale="log", xlabel="step", ylabel="norm, first kernel / last kernel")
    axes[1].legend(fontsize=8)
    for shift, marker, rate in ((-0.1, "o", "usual"), (0.1, "s", "exploding")):
        there = [i for i, name in enumerate(names) if (rate, name) in outcomes]
        found = [[1 - o.test_error for o in outcomes[rate, names[i]]] for i in there]
        axes[2].errorbar(
            np.array(there) + shift,
            np.mean(found, axis=1),
            [spread(accuracies) for accuracies in found],
            fmt=marker,
            capsize=3,
            label=f"{rate} rate, {rates[rate]:g}",
        )
    axes[2].set_xticks(range(len(names)), names, rotation=30)
    axes[2].set(ylabel="test accuracy", ylim=(0, 1.05))
    axes[2].legend()
    return figure


def main(given=None):
    """Trains all, and publishes what came out."""
    arguments = page.parse(__doc__, ["digits"], ["mnist"], given)
    size = WHOLE if arguments.data == "mnist" else SHIPPED
    size = QUICK if arguments.quick else size
    parts = getattr(data, arguments.data)()
    images = [(square(x[: size.images]), y[: size.images]) for x, y in parts]
    outcomes = {}
    kinds = itertools.product(size.rates.items(), range(size.seeds))
    for (setting, rate), seed in kinds:
        log_dir = arguments.log_dir / f"{setting}_{seed}"
        for name, mine in treatments(size, log_dir).items():
            if arguments.quick and setting == "usual" and mine:
                continue  # to be quicker still
            outcome = train(images, size, rate, seed, mine)
            outcomes.setdefault((setting, name), []).append(outcome)
            print(f"{setting}, {name}: {1 - outcome.test_error:.3f}", flush=True)
    rows = [row(*kind, found) for kind, found in outcomes.items()]
    page.publish(arguments, page.table(HEAD, rows), draw(outcomes, size.rates))


if __name__ == "__main__":
    main()
