"""How a step branches and writes: what differs from backend to backend."""

import contextlib

import keras
from keras import ops

from keras_gradwatch.tensors.branch import cond


class Runner:
    """How one step takes branches, and writes variables in them; on one device.

    Where the methods below speak of a predicate, it is a scalar bool tensor, and
    variables are a list of `keras.Variable`.

    Attributes:
        branches: Whether `branch` can be used.
        count: Number of replicas, each of which sees a part of the batch.
        state_comes_late: Whether what the forward pass does to the model's state is
            known only when the model's own step has returned.
    """

    branches = False
    count = 1
    state_comes_late = False

    def scope(self):
        """Context in which the operations of this package run in a step."""
        return contextlib.nullcontext()

    def own(self, function):
        """A function of Keras's as it runs outside of `scope`, to be called in it."""
        return function

    def arguments(self, *arguments):
        """What the model's own step is called with."""
        return arguments

    def logs(self, returned):
        """The logs among what the model's own step has returned."""
        return returned

    def result(self, logs):
        """What a step has to return together with `logs`."""
        return logs

    def sum(self, tensors):
        """Sums each tensor over the replicas; the tensors themselves if there is one.

        Args:
            tensors: List of tensors and sparse gradients.
        """
        return list(tensors)

    def known_sums(self, gradients, sums):
        """Context in which `apply` need not sum `gradients` over the replicas again."""
        del gradients, sums
        return contextlib.nullcontext()

    def seen(self, loss):
        """A loss as it can be used outside of what differentiates it, or None."""
        return loss

    def reachable(self, value, gradient):
        """What `seen` gave, where a gradient can be used together with it; or None."""
        del gradient
        return value

    def after(self, value, other):
        """`value`, once `other` has been computed: never in a step without a batch."""
        del other
        return value

    def copies(self, variables, wanted=None):
        """The values of variables as they are now, whatever is assigned later.

        Args:
            variables: The variables.
            wanted: Predicate; where it does not hold, the result is ignored.
                None: always.

        Returns:
            List of tensors; not always with a static shape.
        """
        raise NotImplementedError

    def run_if(self, predicate, function, arguments, written):
        """Calls `function(arguments)` where `predicate` holds, in every replica.

        Args:
            predicate: The same in all replicas.
            function: Called with a list of tensors; what it returns is dropped.
            arguments: List of tensors, each replica's own.
            written: The variables that it may assign to.
        """
        raise NotImplementedError

    def once(self, function):
        """A function that is traced now, and never again; of and to nothing."""
        return function

    def branch(self, predicate, fast, slow):
        """What `fast()` gives where `predicate` holds, else what `slow()` gives.

        Only where `branches` is True.

        Args:
            predicate: The same in all replicas.
            fast: May assign to variables; gives a tuple of tensors.
            slow: The same.
        """
        raise NotImplementedError

    def restore(self, predicate, variables, values):
        """Assigns `values` to `variables` where `predicate` holds, in every replica.

        Args:
            predicate: The same in all replicas.
            variables: The variables.
            values: List of tensors, each replica's own.
        """
        raise NotImplementedError

    def replace_if(self, predicate, variables, function):
        """Assigns what `function` gives where `predicate` holds.

        Args:
            predicate: The same in all replicas.
            variables: List of N variables.
            function: Gives N values, and a scalar float32, above 0 where they are to
                be assigned; assigns nothing.

        Returns:
            That number; 0 where `predicate` does not hold.
        """

        def keep():
            return [*values_of(variables), ops.convert_to_tensor(0.0, "float32")]

        def replace():
            values, number = function()
            return [*values, number]

        *values, number = cond(predicate, replace, keep)
        self.restore(number > 0, variables, values)
        return number


def values_of(variables):
    """The present values of variables, a list of tensors."""
    if keras.config.backend() == "tensorflow":
        # There, `ops.convert_to_tensor` gives a variable that is read at each use.
        return [v.value.read_value() for v in variables]
    return [ops.convert_to_tensor(v) for v in variables]
