"""What watching costs under a strategy: no second all-reduce where none is needed."""

from collections import Counter

import keras
import pytest
import tensorflow as tf

from keras_gradwatch.callbacks import GradientClipping, GradientHistory, GradWatch
from tests import helper

CALLBACKS = {
    "observe": GradientHistory,
    "GradWatch": lambda: GradWatch(verbose=0),
    "clip": lambda: GradientClipping(global_clipnorm=0.1),
}


def reductions(strategy, optimizer, callback):
    """Number of tensors that one traced step reduces over the replicas."""
    x, y = helper.regression_data(8)
    with strategy.scope():
        model = helper.regression(optimizer)
    helper.fit(model, x, y, [callback] if callback else [])
    data = tf.data.Dataset.from_tensors((x, y))
    batch = next(iter(strategy.experimental_distribute_dataset(data)))
    step = tf.function(lambda data: strategy.run(model.train_step, args=(data,)))
    graph = step.get_concrete_function(batch).graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    return Counter(node.op for node in nodes)["CollectiveReduceV2"]


@pytest.mark.parametrize("way", helper.few(["GradWatch"], CALLBACKS))
def test_one_all_reduce_serves_both(strategy, way):
    def count(callback):
        return reductions(strategy, keras.optimizers.SGD(0.1), callback)

    assert count(CALLBACKS[way]()) == count(None) > 0


def test_a_clip_of_the_users_own_needs_a_second(strategy):
    """It clips each replica's gradient, as in stock Keras; the sum is another one."""

    def count(callback):
        optimizer = keras.optimizers.SGD(0.1, global_clipnorm=1.0)
        return reductions(strategy, optimizer, callback)

    assert count(GradientHistory()) == 2 * count(None)
