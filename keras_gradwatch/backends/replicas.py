"""The same code for one device and for the replicas of a TensorFlow strategy.

A step under a strategy runs once in each replica. A branch must not contain a
`merge_call`, and optimizers make one; so branches are taken in cross-replica context,
where all replicas take the same branch.
"""

import contextlib

import tensorflow as tf

from keras_gradwatch.backends.runner import Runner
from keras_gradwatch.keras_hooks import all_reduce as reduced
from keras_gradwatch.keras_hooks.model_state import value_of
from keras_gradwatch.tensors.branch import outlined


class Replicas(Runner):
    """Runs a step in each replica; must be created inside the step."""

    def __init__(self, compiled):
        self._compiled = compiled
        self.context = tf.distribute.get_replica_context()
        self.count = self.context.num_replicas_in_sync if self.context else 1

    def sum(self, tensors):
        if self.count == 1 or not tensors:
            return list(tensors)
        # What is summed together is packed together, and must be of one type.
        sums = [None] * len(tensors)
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            places = [i for i, tensor in enumerate(tensors) if tensor.dtype == dtype]
            alike = [tensors[i] for i in places]
            alike = self.context.all_reduce(tf.distribute.ReduceOp.SUM, alike)
            for i, tensor in zip(places, alike, strict=True):
                sums[i] = tensor
        return sums

    def after(self, value, other):
        # If the length of the data is unknown, one more step begins after the last
        # batch, and the operations that do not depend on a batch still run.
        with tf.control_dependencies([other]):
            return tf.identity(value)

    def reachable(self, value, gradient):
        # A loss of a graph within the step's stays there; one of a graph around it
        # does not.
        graph = getattr(gradient, "graph", None) if tf.inside_function() else None
        own = getattr(value, "graph", None) if graph is not None else None
        while graph is not own and graph is not None:
            graph = getattr(graph, "outer_graph", None)
        return value if own is None or graph is own else None

    @contextlib.contextmanager
    def known_sums(self, gradients, sums):
        if self.count == 1:
            yield
            return
        reduced.remember(gradients, sums)
        try:
            yield
        finally:
            reduced.forget(gradients)

    def copies(self, variables, wanted=None):
        def copy():
            return [value_of(v).read_value() for v in variables]

        if wanted is None or self._compiled:
            # XLA knows no branch that returns tensors of another shape.
            return copy()

        def nothing():
            kinds = {(len(v.shape), v.dtype) for v in variables}
            empty = {(rank, t): tf.zeros([0] * rank, t) for rank, t in kinds}
            return [empty[len(v.shape), v.dtype] for v in variables] + [0]

        return tf.cond(wanted, lambda: [*copy(), 0], nothing)[:-1]

    def run_if(self, predicate, function, arguments, written):
        if self.count == 1:

            def run():
                function(arguments)
                return 0

            tf.cond(predicate, run, lambda: 0)
            return

        def branch(strategy, arguments, predicate):
            def run():
                strategy.extended.call_for_each_replica(function, args=(arguments,))
                return 0

            agreed = strategy.experimental_local_results(predicate)[0]
            tf.cond(agreed, run, lambda: 0)

        self.context.merge_call(branch, args=(arguments, predicate))

    @property
    def branches(self):
        return self.count == 1

    def once(self, function):
        if not tf.inside_function():
            return function
        traced = tf.function(function, autograph=False).get_concrete_function()
        return lambda: traced()

    def branch(self, predicate, fast, slow):
        if not tf.inside_function():
            return fast() if predicate else slow()
        return tf.cond(predicate, lambda: [*fast()], outlined(lambda: [*slow()]))

    def restore(self, predicate, variables, values):
        if not variables:
            return
        if self.count == 1:

            def assign():
                for variable, value in zip(variables, values, strict=True):
                    variable.assign(tf.reshape(value, variable.shape))
                return 0

            tf.cond(predicate, assign, lambda: 0)
            return

        def branch(strategy, values, predicate):
            def assign():
                for variable, value in zip(variables, values, strict=True):
                    _assign_everywhere(strategy, variable.value, value)
                return 0

            agreed = strategy.experimental_local_results(predicate)[0]
            tf.cond(agreed, assign, lambda: 0)

        self.context.merge_call(branch, args=(values, predicate))

    def replace_if(self, predicate, variables, function):
        if self.count > 1:
            # A replica must not assign within a branch.
            return super().replace_if(predicate, variables, function)

        def replace():
            values, number = function()
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
            return number

        return tf.cond(predicate, outlined(replace), lambda: 0.0)


def _assign_everywhere(strategy, variable, value):
    # Component by component: metrics are summed when they are read, so that each
    # replica has a value of its own.
    owns = strategy.experimental_local_results(variable)
    values = strategy.experimental_local_results(value)
    for own, new in zip(owns, values, strict=True):
        own.assign(tf.reshape(new, own.shape))
