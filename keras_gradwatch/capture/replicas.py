"""The same code for one device and for the replicas of a TensorFlow strategy.

A step under a strategy runs once in each replica. A branch must not hold a
`merge_call`, and optimizers make one: so branches are taken in cross-replica context,
where every replica takes the same.
"""

import contextlib

import tensorflow as tf

from keras_gradwatch.capture import reduced


class Replicas:
    """The replicas that the present step runs in; to be made inside the step."""

    def __init__(self):
        self.context = tf.distribute.get_replica_context()
        self.count = self.context.num_replicas_in_sync if self.context else 1

    def sum(self, tensors):
        """Sums each tensor over the replicas; the tensors themselves if there is one.

        Args:
            tensors: List of tensors and `IndexedSlices`.
        """
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

    @contextlib.contextmanager
    def known_sums(self, gradients, sums):
        """While `apply` is traced: it need not sum `gradients` again."""
        if self.count == 1:
            yield
            return
        reduced.remember(gradients, sums)
        try:
            yield
        finally:
            reduced.forget(gradients)

    def run_if(self, predicate, function, arguments):
        """Calls `function(arguments)` in every replica, where `predicate` holds.

        Args:
            predicate: Scalar bool, the same in all replicas.
            function: Called with a list of tensors; what it returns is dropped.
            arguments: List of tensors, each replica's own.
        """
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

    def restore(self, predicate, variables, values):
        """Assigns `values` to `variables` in every replica, where `predicate` holds.

        Args:
            predicate: Scalar bool, the same in all replicas.
            variables: List of `keras.Variable`.
            values: List of tensors, each replica's own.
        """
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


def _assign_everywhere(strategy, variable, value):
    # Component by component: metrics are summed when they are read, so that each
    # replica has a value of its own.
    owns = strategy.experimental_local_results(variable)
    values = strategy.experimental_local_results(value)
    for own, new in zip(owns, values, strict=True):
        own.assign(tf.reshape(new, own.shape))
