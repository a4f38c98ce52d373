"""The ways to train in the matrix: one dimension a table."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

BATCH = 4


# Where: the strategy is a fixture, so that a table holds only whether it is asked for.
PLACEMENTS = {"one_device": False, "mirrored": True}

# How numbers are held: the dtype policy, the keyword arguments of the optimizer, those
# of `compile`, and the wrapper of the optimizer.
PRECISIONS = {
    "float32": {"policy": "float32"},
    "mixed_float16": {"policy": "mixed_float16"},
    "loss_scale": {
        "policy": "mixed_float16",
        "wrap": lambda inner: keras.optimizers.LossScaleOptimizer(
            inner, initial_scale=1024, dynamic_growth_steps=2
        ),
    },
    "fixed_scale": {
        "policy": "mixed_float16",
        "optimizer": {"loss_scale_factor": 128.0},
        "compile": {"auto_scale_loss": False},
    },
    "mixed_bfloat16": {"policy": "mixed_bfloat16"},
    "float16": {"policy": "float16"},
    "float64": {"policy": "float64"},
}

# How a step is run: keyword arguments of `compile`.
EXECUTIONS = {
    "graph": {},
    "xla": {"jit_compile": True},
    "two_steps": {"steps_per_execution": 2},
    "eager": {"run_eagerly": True},
}

# Keyword arguments of the optimizer.
ACCUMULATIONS = {"every_batch": {}, "accumulated": {"gradient_accumulation_steps": 2}}


def arrays(model, x, y, **kwargs):
    history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0, **kwargs)
    return history.history


def dataset(model, x, y, **kwargs):
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
    return model.fit(batches, shuffle=False, verbose=0, **kwargs).history


def generator(model, x, y, **kwargs):
    batches = batches_of(x, y)
    kwargs = {"steps_per_epoch": len(batches), "verbose": 0, **kwargs}
    return model.fit((batch for batch in batches), shuffle=False, **kwargs).history


class Sequence(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def py_dataset(model, x, y, **kwargs):
    return model.fit(
        Sequence(batches_of(x, y)), shuffle=False, verbose=0, **kwargs
    ).history


def sample_weights(model, x, y, **kwargs):
    weights = keras.tree.map_structure(lambda labels: 0.5 + labels / 10, y)
    return arrays(model, x, y, sample_weight=weights, **kwargs)


def class_weights(model, x, y, **kwargs):
    weights = {label: 0.5 + label / 10 for label in range(10)}
    return arrays(model, x, y, class_weight=weights, **kwargs)


def train_on_batch(model, x, y):
    """Returns the sums of the batches' logs; those of a skipped batch are NaN."""
    logs = [model.train_on_batch(*b, return_dict=True) for b in batches_of(x, y)]
    return {key: np.nansum([batch[key] for batch in logs]) for key in logs[0]}


FEEDS = {
    "arrays": arrays,
    "dataset": dataset,
    "generator": generator,
    "py_dataset": py_dataset,
    "sample_weights": sample_weights,
    "class_weights": class_weights,
    "train_on_batch": train_on_batch,
}


def batches_of(x, y):
    """List of batches `(x, y)` of arrays in nested structures."""
    count = len(keras.tree.flatten(y)[0])
    rows = [slice(start, start + BATCH) for start in range(0, count, BATCH)]
    return [keras.tree.map_structure(lambda a, r=r: a[r], (x, y)) for r in rows]


@contextlib.contextmanager
def dtype_policy(name):
    """The default policy of all layers made inside."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
