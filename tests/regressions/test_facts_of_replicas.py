"""Facts about strategies that the package stands on; see `test_keras_facts.py`."""

import json
import os
import re
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_gradwatch.keras_hooks import all_reduce as reduced
from tests import helper


def one_variable(strategy, make):
    """`(variable, optimizer)`, built under `strategy`."""
    with strategy.scope():
        variable = keras.Variable(np.zeros(1, "float32"))
        optimizer = make()
        optimizer.build([variable])
    return variable, optimizer


def apply_in_replicas(strategy, optimizer, variable, gradients):
    """One `apply` with another gradient in each replica."""

    @tf.function
    def run():
        def replica():
            index = tf.distribute.get_replica_context().replica_id_in_sync_group
            optimizer.apply([tf.gather(gradients, index)[None]], [variable])

        strategy.run(replica)

    run()


def test_fact_2_one_replica_is_asked_whether_gradients_are_finite(strategy):
    """Else keras_hooks/loss_scale.py need not spoil the gradients of all replicas."""
    variable, optimizer = one_variable(
        strategy, lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0))
    )
    apply_in_replicas(strategy, optimizer, variable, tf.constant([1.0, np.inf]))
    assert keras.ops.convert_to_numpy(variable) == -np.inf


def test_fact_8_a_branch_holds_no_merge_call(strategy):
    """Else backends/replicas.py could branch in the replica's own context."""
    variable, optimizer = one_variable(strategy, lambda: keras.optimizers.SGD(1.0))

    @tf.function
    def run():
        def replica():
            def apply():
                optimizer.apply([tf.ones(1)], [variable])
                return 0

            tf.cond(tf.reduce_sum(variable.value) < 1, apply, lambda: 0)

        strategy.run(replica)

    with pytest.raises(RuntimeError, match="merge_call"):
        run()


def test_fact_12_iterations_cannot_be_read_as_an_int(strategy):
    """keras_hooks/accumulation.py reads them by `convert_to_numpy`."""
    _, optimizer = one_variable(strategy, lambda: keras.optimizers.SGD(1.0))
    with pytest.raises(TypeError):
        int(optimizer.iterations)
    assert keras.ops.convert_to_numpy(optimizer.iterations) == 0


FIT = """
import json, os, sys
import tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras
from keras_gradwatch import watch
from tests import helper
with strategy.scope():
    model = helper.regression()
try:
    helper.fit(model, *helper.regression_data(16))
except Exception as error:
    print("stock", type(error).__name__, error)
try:
    watch(model)
except Exception as error:
    print("watched", type(error).__name__, error)
"""


@pytest.mark.thorough
def test_fact_17_fit_does_not_run_on_several_machines():
    """Else `check_strategy` in backends/tensorflow.py need not refuse this strategy."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("localhost", 0))
    workers = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    processes = []
    for index in range(2):
        cluster = {
            "cluster": {"worker": workers},
            "task": {"type": "worker", "index": index},
        }
        env = {
            **os.environ,
            "TF_CONFIG": json.dumps(cluster),
            "PYTHONPATH": str(helper.ROOT),
        }
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", FIT],
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    try:
        for process in processes:
            printed, _ = process.communicate(timeout=120)
            assert re.search("^stock .*PerReplica", printed, re.M), printed
            assert re.search("^watched ValueError .*20585", printed, re.M), printed
    finally:
        for process in processes:
            process.kill()
            process.stdout.close()


def test_fact_18_no_accumulation_under_a_strategy(strategy):
    """Else docs/guides/regimes.md must not say so."""
    variable, optimizer = one_variable(
        strategy, lambda: keras.optimizers.SGD(1.0, gradient_accumulation_steps=2)
    )
    with pytest.raises(RuntimeError, match="merge_call"):
        apply_in_replicas(strategy, optimizer, variable, tf.constant([1.0, 1.0]))


TWO_STRATEGIES = """
import tests.conftest
import keras, numpy as np, tensorflow as tf
from tests import helper
for units in (3, 4):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = helper.regression(units=units)
    try:
        helper.fit(model, *helper.regression_data(16, units))
    except tf.errors.OpError as error:
        print("raised", error)
"""


def test_fact_19_strategies_of_one_process_share_collective_keys():
    """tests/conftest.py makes one only."""
    assert "Shape mismatch" in helper.run_python(TWO_STRATEGIES)


def test_the_private_sum_over_replicas(strategy):
    """keras_hooks/all_reduce.py spares an optimizer what is summed already."""
    variable, optimizer = one_variable(strategy, lambda: keras.optimizers.SGD(1.0))
    own, seen = getattr(optimizer, reduced.HOOK), []

    def stand_in(grads_and_vars):
        seen.append(len(grads_and_vars))
        return own(grads_and_vars)

    object.__setattr__(optimizer, reduced.HOOK, stand_in)
    apply_in_replicas(strategy, optimizer, variable, tf.constant([1.0, 2.0]))
    assert seen == [1, 1]
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), [-3.0])
