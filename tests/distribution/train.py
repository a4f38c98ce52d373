"""Trains on four devices, in one process or in several; run by the tests beside it.

    python train.py KINDS DIRECTORY PROCESSES RANK PORT

KINDS are "one" (no distribution), "data" and "model", with commas between them. What
was recorded is written to `RANK.json` in DIRECTORY.
"""

import json
import os
import pathlib
import sys
import warnings

KINDS, DIRECTORY = sys.argv[1].split(","), pathlib.Path(sys.argv[2])
PROCESSES, RANK, PORT = map(int, sys.argv[3:])
# Before JAX is imported.
os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={4 // PROCESSES}"

import keras  # noqa: E402
import numpy as np  # noqa: E402

from keras_gradwatch import callbacks, detectors, unwatch  # noqa: E402
from tests import helper  # noqa: E402

BATCH = 8  # of all processes together


def distribution(kind):
    """Four devices: the batch in four parts, or batch and weights in two each."""
    devices = keras.distribution.list_devices()
    if kind == "one":
        return None
    if kind == "data":
        return keras.distribution.DataParallel(
            devices=devices, auto_shard_dataset=False
        )
    # Transposed: the parts of a weight are in different processes.
    mesh = keras.distribution.DeviceMesh(
        (2, 2), ("batch", "model"), np.array(devices).reshape(2, 2).T
    )
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*dense.*kernel.*"] = (None, "model")
    layouts[".*gradwatch.*"] = ("model",)  # ours are not for a user to spread
    return keras.distribution.ModelParallel(
        layout_map=layouts, auto_shard_dataset=False
    )


def data(kind):
    """Digits, with one row of batch 3 NaN; of "data" what this process feeds."""
    x, y = helper.digits(96)
    x = helper.with_nan(x, 3, BATCH, slice(-1, None))
    if kind == "data":
        parts = x.reshape(-1, PROCESSES, BATCH // PROCESSES, x.shape[1])
        x = parts[:, RANK].reshape(-1, x.shape[1])
        y = y.reshape(-1, PROCESSES, BATCH // PROCESSES)[:, RANK].reshape(-1)
    return x, y, BATCH // PROCESSES if kind == "data" else BATCH


def train(kind):
    """Skips a batch and goes back in two fits; returns what was recorded."""
    keras.distribution.set_distribution(distribution(kind))
    keras.utils.set_random_seed(0)
    x, y, batch_size = data(kind)
    model = helper.compiled(
        helper.functional(dropout=0), keras.optimizers.SGD(0.1, momentum=0.9)
    )
    history = callbacks.GradientHistory()

    def protect():
        return (
            callbacks.GradWatch(
                DIRECTORY / f"logs{RANK}" / kind,
                detector=detectors.NonFinite(),
                max_rewinds=0,
            ),
            callbacks.RewindOnExplosion(
                detector=detectors.NormThreshold(2.3), update_freq=4, verbose=0
            ),
        )

    helper.fit(model, x, y, [history, *protect()], batch_size)
    clean = np.nan_to_num(x)
    helper.fit(model, clean, y, [history, *protect()], batch_size)
    model.train_on_batch(clean[:batch_size], y[:batch_size])
    record = {
        "norm": history.global_norm.tolist(),
        "weights": history.statistics["weight_norm"].tolist(),
        "rates": history.learning_rate.tolist(),
        "applied": history.applied.tolist(),
        "events": [(e.step, e.kind, e.action) for e in history.events],
    }
    if kind == "data" and PROCESSES > 1:
        unwatch(model)  # as in a new process, with the model of the old one
        history = callbacks.GradientHistory()
        helper.fit(model, clean, y, [history, *protect()], batch_size)
        record["taken_up"] = int(history.steps[0])
    return record


def main():
    """Trains with each kind of distribution."""
    warnings.simplefilter("error")
    if PROCESSES > 1:
        keras.distribution.initialize(f"localhost:{PORT}", PROCESSES, RANK)
    records = {kind: train(kind) for kind in KINDS}
    (DIRECTORY / f"{RANK}.json").write_text(json.dumps(records))


if __name__ == "__main__":
    main()
