"""What stock Keras itself cannot run, and why.

A combination is named by what it has of the tables; no two tables share a name.
"""

import tensorflow as tf

# (names that together fail, the error of stock Keras, why)
STOCK_FAILS = [
    (
        {"mirrored", "xla"},
        tf.errors.InvalidArgumentError,
        "XLA compiles no reduction over logical CPUs",
    ),
    (
        {"mirrored", "two_steps"},
        tf.errors.InvalidArgumentError,
        "a ragged end of steps_per_execution has no output under a strategy",
    ),
    (
        {"mirrored", "accumulated"},
        RuntimeError,
        "the condition at the end of a window holds a merge_call",
    ),
    (
        {"mirrored", "ema"},
        RuntimeError,
        "the condition of ema_overwrite_frequency holds a merge_call",
    ),
    (
        {"class_weights", "two_inputs_two_outputs"},
        ValueError,
        "class weights are for models with a single output",
    ),
    (
        {"ema", "float8"},
        ValueError,
        "what is overwritten by its gradient has no average to be overwritten with",
    ),
    (
        {"eager", "float8"},
        ValueError,
        "the gradient of a float8 layer takes other arguments outside of a graph",
    ),
    (
        {"fixed_scale", "embedding"},
        TypeError,
        "sparse gradients are divided by a loss scale of Python",
    ),
    *(
        (
            {precision, "added_losses"},
            TypeError,
            "a regularizer's loss has the type of its weights, others are of float32",
        )
        for precision in ("float16", "float64")
    ),
    *(
        (
            {precision, "int8_lora"},
            ValueError,
            "Keras refuses to quantize to int8 what computes in float16",
        )
        for precision in ("float16", "mixed_float16", "loss_scale", "fixed_scale")
    ),
]

# What has nothing to be compared with, and why.
# Under a strategy Keras builds the model from a second iterator over the generator,
# which takes batches that nobody trains on.
LOST_BATCHES = {"mirrored", "generator"}
# Stock Keras packs gradients of two types together, of float16 and of LoRA's float32,
# and raises; watched, the model trains.
TWO_TYPES = {"mirrored", "float16", "lora"}
# Nor can it sum the squares of float64 and of LoRA's float32 for a global norm.
TWO_TYPES_IN_A_NORM = {"float64", "own_clip", "lora"}
# Its masks are random, so the batch left out is the last one; and metrics begin anew
# with each `train_on_batch`: those of no batch stay behind.
LAST_METRICS = {"train_on_batch", "counter_dropout"}
# Weights of float16 have slots of float16. The second moment of a small gradient is
# zero there, and an update that is divided by its root is large or infinite in stock
# Keras: nothing is idle then.
DIVERGE_IN_FLOAT16 = (
    "adam",
    "adamw",
    "adamax",
    "adafactor",
    "nadam",
    "schedule_free",
    "multi",
    "ema",
    "own_clip",
    "schedule",
)

_UNSUPPORTED = [
    *(names for names, *_ in STOCK_FAILS),
    LOST_BATCHES,
    TWO_TYPES,
    TWO_TYPES_IN_A_NORM,
    LAST_METRICS,
    *({"float16", optimizer} for optimizer in DIVERGE_IN_FLOAT16),
]


def is_supported(names):
    """Whether all that has these names, out of some tables or all, can be run."""
    return not any(together <= set(names) for together in _UNSUPPORTED)
