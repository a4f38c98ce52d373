"""Clipping in every regime is stock Keras's own clipping on one device in float32."""

import numpy as np
import pytest
import tensorflow as tf

from keras_gradwatch.callbacks import GradientClipping, GradientHistory
from keras_gradwatch.policies import AdaGC, AdaptiveGradientClip, AutoClip, Chain
from tests import helper
from tests.regimes import models, ways
from tests.regimes.twins import COUNT, Combination, build, digits

GLOBAL, EACH, VALUE = (
    {"global_clipnorm": 0.1},
    {"clipnorm": 0.05},
    {"clipvalue": 0.005},
)
# Where BatchNorm is, replicas have statistics of their own: there is none in these.
TABLE = {
    "one_device-float32-graph-every_batch-arrays-sgd-shared_layer": GLOBAL,
    "one_device-float32-graph-every_batch-sample_weights-adam-embedding": EACH,
    "one_device-float32-xla-every_batch-dataset-sgd-lora": VALUE,
    "one_device-float32-two_steps-accumulated-py_dataset-sgd-embedding": GLOBAL,
    "one_device-float32-eager-accumulated-arrays-multi-shared_layer": EACH,
    "one_device-mixed_float16-graph-accumulated-arrays-sgd-constraints": GLOBAL,
    "one_device-fixed_scale-graph-every_batch-arrays-sgd-shared_layer": VALUE,
    "one_device-float64-graph-every_batch-generator-sgd-shared_layer": EACH,
    "mirrored-float32-graph-every_batch-arrays-sgd-shared_layer": GLOBAL,
    "mirrored-float32-graph-every_batch-dataset-sgd-embedding": EACH,
    "mirrored-float32-eager-every_batch-arrays-sgd-two_inputs_two_outputs": VALUE,
    "mirrored-loss_scale-graph-every_batch-arrays-sgd-lora": GLOBAL,
    "mirrored-mixed_bfloat16-graph-every_batch-arrays-sgd-shared_layer": GLOBAL,
}

# Rows with these take the way of another row, or of a test in tests/callbacks.
ALSO_ELSEWHERE = (
    "eager",
    "float64",
    "bfloat16",
    "one_device-float32-graph",
    "mirrored-float32",
)


def tolerance(names):
    """Largest distance, as a share of the way that was trained.

    That way is a thousandth of the weights, which float32 holds to 1e-7. Gradients of
    half precision are off by 2^-11, those of bfloat16 by 2^-8, each a few times.
    """
    if "bfloat16" in names.precision:
        return 5e-2
    return 1e-3 if names.precision in ("float32", "float64") else 1e-2


@pytest.mark.parametrize(
    "row",
    helper.few(
        [row for row in TABLE if not any(part in row for part in ALSO_ELSEWHERE)], TABLE
    ),
)
def test_clipping_is_that_of_stock_keras_on_one_device(row, request):
    limit, names = TABLE[row], Combination(*row.split("-"))
    strategy = None
    if ways.PLACEMENTS[names.placement]:
        strategy = request.getfixturevalue("strategy")
    feed = ways.FEEDS[names.feed]
    data = models.data_for(names.model, *digits(0, COUNT))

    # The options of a regime that has nothing to do with it are left out.
    simple = names._replace(placement="one_device", precision="float32")
    stock = build(simple._replace(execution="graph"), **limit)
    _sum_rows(stock.optimizer)
    weights, before = stock.get_weights(), _flat(stock)
    feed(stock, *data)

    watched, seen = build(names, strategy), GradientHistory()
    watched.set_weights(weights)
    feed(watched, *data, callbacks=[GradientClipping(**limit), seen])

    measured = ~np.isnan(seen.global_norm)
    assert (seen.clipped_norm < seen.global_norm)[measured].all() and measured.any()
    way = np.linalg.norm(_flat(stock) - before)
    apart = np.linalg.norm(_flat(watched) - _flat(stock))
    assert way > 0 and apart < tolerance(names) * way


CHAINED = [
    "mirrored-loss_scale-graph-every_batch-arrays-sgd-lora",
    "one_device-mixed_float16-two_steps-accumulated-dataset-sgd-embedding",
]


@pytest.mark.parametrize("row", helper.few(CHAINED[:1], CHAINED))
def test_a_chain_is_in_every_regime_what_it_is_on_one_device(row, request):
    """On one device in float32, tests/policies has it against NumPy."""
    names = Combination(*row.split("-"))
    strategy = None
    if ways.PLACEMENTS[names.placement]:
        strategy = request.getfixturevalue("strategy")
    feed = ways.FEEDS[names.feed]
    data = models.data_for(names.model, *digits(0, COUNT))
    policies = [AdaGC(1.1, 0.9, 1, 0.2), AutoClip(30.0), AdaptiveGradientClip(0.1)]
    policy = Chain(policies)

    simple = names._replace(placement="one_device", precision="float32")
    plain = build(simple._replace(execution="graph"))
    weights, before = plain.get_weights(), _flat(plain)
    feed(plain, *data, callbacks=[GradientClipping(policy)])

    watched, seen = build(names, strategy), GradientHistory()
    watched.set_weights(weights)
    feed(watched, *data, callbacks=[GradientClipping(policy), seen])
    assert (seen.clipped_norm < seen.global_norm).any()
    way = np.linalg.norm(_flat(plain) - before)
    apart = np.linalg.norm(_flat(watched) - _flat(plain))
    assert way > 0 and apart < tolerance(names) * way


def _sum_rows(optimizer):
    """Has sparse gradients made dense: Keras clips equal ids each on its own."""
    apply = optimizer.apply

    def dense(gradients, variables):
        return apply([tf.convert_to_tensor(g) for g in gradients], variables)

    object.__setattr__(optimizer, "apply", dense)


def _flat(model):
    return np.concatenate(
        [a.astype("float64").ravel() for a in helper.values(model.weights)]
    )
