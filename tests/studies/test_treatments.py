"""The study of treatments: what it prints, and its parts against NumPy and Keras."""

import re

import keras
import numpy as np
import pytest

from tests.test_examples import event_files, run

pytestmark = pytest.mark.tensorflow
COLUMNS = [
    "treatment",
    "survived",
    "held-out error",
    "worst seed",
    "exploded",
    "first explosion (step)",
    "steps",
    "ms per step",
    "relative to untreated",
]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder in which the study ran with `--quick`, and what it printed."""
    folder = tmp_path_factory.mktemp("treatments")
    return folder, run("treatments.py", folder, "--quick")


def table(printed):
    """The rows of the one table: dict of treatment to dict of column to text."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("| ")
    ]
    assert lines[0] == COLUMNS
    return {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines[1:]}


def test_the_table_says_what_became_of_each_treatment(quick, study):
    rows = table(quick[1])
    assert list(rows) == study.QUICK
    for row in rows.values():
        error = float(row["held-out error"])
        assert 0 <= error <= 1 and row["worst seed"] == row["held-out error"]
        assert row["survived"] == ("1 of 1" if error < 0.45 else "0 of 1")
        exploded = row["first explosion (step)"] != "–"
        assert row["exploded"] == ("1 of 1" if exploded else "0 of 1")
        assert row["steps"] == "172"  # 4 epochs of 43
        assert 0.1 < float(row["ms per step"]) < 1000
    untreated, watched = rows["untreated"], rows["GradWatch()"]
    assert untreated["relative to untreated"] == "1.00"
    assert untreated["survived"] == "0 of 1"
    assert 0 < int(untreated["first explosion (step)"]) < 43
    assert watched["survived"] == rows["initialization: He"]["survived"] == "1 of 1"
    # The loss that proves the harm of an update, which is then put back.
    assert int(watched["first explosion (step)"]) < 3
    assert re.search(r"^\d\.\d\d of its first time\.$", quick[1], re.MULTILINE)


def test_plot_and_logs_are_there(quick, study):
    folder = quick[0] / "logs" / "treatments"
    assert (folder / "treatments.png").read_bytes().startswith(b"\x89PNG")
    sizes = event_files(folder)
    assert len(sizes) == len(study.QUICK)
    assert {"untreated/gradwatch", "GradWatch/gradwatch"} <= set(sizes)
    assert min(sizes.values()) > 1000


def test_every_quick_treatment_is_one_of_all_and_each_differs(study):
    assert set(study.QUICK) <= set(study.TREATMENTS)
    setups = list(study.TREATMENTS.values())
    assert len(setups) > 40
    assert all(a != b for i, a in enumerate(setups) for b in setups[:i])


def test_the_level_of_each_loss_is_that_of_the_best_constant_answer(study):
    truth = np.eye(10, dtype="float32")  # one row of each class

    def constant(name, value):
        answer = np.full((10, 10), value, "float32")
        return float(study.LOSSES[name][0](truth, answer))

    by_hand = {
        "cross-entropy": -np.log(0.1),
        "squared error": np.mean((truth - 0.1) ** 2),
        "Huber": np.mean(0.5 * (truth - 0.1) ** 2),
        "hinge": 1.0,
    }
    best = {"cross-entropy": 0.0, "squared error": 0.1, "Huber": 0.1, "hinge": 0.0}
    assert set(study.LOSSES) == set(by_hand)
    for name, expected in by_hand.items():
        assert study.LOSSES[name][1] == pytest.approx(expected, rel=1e-6)
        assert constant(name, best[name]) == pytest.approx(expected, rel=1e-5)
        for other in (-0.2, -0.1, 0.2, 0.5):
            if name != "cross-entropy":  # which is the same for any constant
                assert constant(name, other) > expected - 1e-6


def test_weights_are_drawn_with_the_gain(study):
    for gain in (1.0, study.GAIN):
        keras.utils.set_random_seed(0)
        model = study.network(study.Setup(gain=gain), (32, 32, 3), steps=1)
        for name in ("conv_2", "dense"):
            kernel = keras.ops.convert_to_numpy(model.get_layer(name).kernel)
            fan_in = np.prod(kernel.shape[:-1])
            expected = gain * np.sqrt(2 / fan_in)
            assert kernel.std() == pytest.approx(expected, rel=0.1)


class Losses(keras.callbacks.Callback):
    """Each step's own loss, out of the running mean that Keras logs."""

    def __init__(self):
        super().__init__()
        self.means = []

    def on_train_batch_end(self, batch, logs=None):
        self.means.append(logs["loss"])

    @property
    def values(self):
        totals = np.float64(self.means) * np.arange(1, len(self.means) + 1)
        return np.diff(totals, prepend=0.0)


def test_the_first_explosion_is_that_of_stock_keras(study):
    (x, y), test = study.data.digits()
    dataset = (x, np.eye(10, dtype="float32")[y]), (test[0], np.eye(10)[test[1]])
    setup = study.Setup()
    found = study.treat(setup, dataset, epochs=1, seed=0)

    model, (rows, _), used, options = study.prepare(setup, dataset, 1, seed=0)
    assert used == []
    logits = model(rows[0][:256], training=False)
    logits = keras.ops.convert_to_numpy(logits).astype("float64")
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    untrained = -(rows[1][:256] * log_softmax).sum(axis=1).mean()
    stock = Losses()
    model.fit(*rows, verbose=0, callbacks=[stock], **options)
    over = ~(stock.values < 10 * max(untrained, np.log(10)))
    assert found.first_explosion == np.argmax(over) > 0
    assert over.any()
