"""Images of ten digits, and what `keras.datasets` downloads.

Every function returns `(x, y), (x, y)`: for training, and held out for the test. Images
are float32 [N, height, width, channels], from 0 to 1; labels are int64 [N].
"""

import keras
import numpy as np
from sklearn.datasets import load_digits, load_sample_images

SPLIT = 1234  # seed: the same rows are held out in every study


def digits():
    """1,797 handwritten digits of 8×8 pixels; they ship with scikit-learn."""
    found = load_digits()
    images = (found.images / 16)[..., None]
    return _split(images.astype("float32"), found.target.astype("int64"))


def photographs():
    """The same digits in colour, 32×32, each on a piece of a photograph.

    The digit is enlarged, moved, given a colour of its own, and laid over a piece of
    one of the two photographs that ship with scikit-learn. Training and test use
    different digits, and different halves of the photographs.
    """
    train, test = digits()
    halves = [np.split(p, [p.shape[1] // 2], 1) for p in load_sample_images().images]
    return tuple(
        (_on_photographs(x, [pair[i] for pair in halves], seed=i), y)
        for i, (x, y) in enumerate((train, test))
    )


def mnist():
    """70,000 handwritten digits of 28×28 pixels, downloaded."""
    return tuple(
        ((x[..., None] / 255).astype("float32"), y.astype("int64"))
        for x, y in _download(keras.datasets.mnist, "MNIST")
    )


def cifar10():
    """60,000 colour images of 32×32 pixels in ten classes, downloaded."""
    return tuple(
        ((x / 255).astype("float32"), y[:, 0].astype("int64"))
        for x, y in _download(keras.datasets.cifar10, "CIFAR-10")
    )


def _split(x, y):
    order = np.random.RandomState(SPLIT).permutation(len(x))
    test, train = np.split(order, [len(x) // 4])
    return (x[train], y[train]), (x[test], y[test])


def _on_photographs(images, photographs, seed):
    rng = np.random.RandomState(SPLIT + seed)
    result = []
    for image in images[..., 0]:
        photograph = photographs[rng.randint(len(photographs))]
        top, left = (rng.randint(side - 32) for side in photograph.shape[:2])
        piece = photograph[top : top + 32, left : left + 32] / 255.0
        mask = np.zeros((32, 32, 1))
        down, right = rng.randint(0, 9, 2)
        mask[down : down + 24, right : right + 24, 0] = image.repeat(3, 0).repeat(3, 1)
        colour = rng.uniform(0, 1, 3)
        # One that can be told from the ground it stands on.
        colour = np.where(np.abs(colour - piece.mean((0, 1))) < 0.3, 1 - colour, colour)
        result.append(piece * (1 - mask) + colour * mask)
    return np.float32(result)


def _download(dataset, name):
    try:
        return dataset.load_data()
    except Exception as error:  # the only class that Keras raises for a lost connection
        raise SystemExit(
            f"{name} cannot be downloaded ({error}). With `--quick`, or with `--data` "
            "and what `--help` says is shipped, this study runs on what ships "
            "with scikit-learn."
        ) from error
