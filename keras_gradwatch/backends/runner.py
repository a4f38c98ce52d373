"""Backend-specific branches and assignments within a step."""

import contextlib

import keras
from keras import ops

from keras_gradwatch.tensors.branch import cond


class Runner:
    """Takes branches, and assigns variables in them, within one step on one device.

    In the methods, a predicate is a scalar bool tensor, the same in all replicas, and
    variables are a list of `keras.Variable`.

    Attributes:
        branches: Whether `branch` can be used.
        count: Number of replicas, each of which sees a part of the batch.
        state_comes_late: Whether the forward pass's changes to the model's state are
            known only after the model's own step has returned.
    """

    branches = False
    count = 1
    state_comes_late = False

    def scope(self):
        """Returns the context in which this package's operations run in a step."""
        return contextlib.nullcontext()

    def own(self, function):
        """Wraps a function of Keras, called within `scope`, to run outside of it."""
        return function

    def arguments(self, *arguments):
        """Returns the arguments for the model's own step."""
        return arguments

    def logs(self, returned):
        """Returns the logs from the result of the model's own step."""
        return returned

    def result(self, logs):
        """Returns what a step must return along with `logs`."""
        return logs

    def sum(self, tensors):
        """Sums each tensor or sparse gradient over the replicas."""
        return list(tensors)

    def known_sums(self, gradients, sums):
        """Returns a context in which `apply` need not sum `gradients` again."""
        return contextlib.nullcontext()

    def seen(self, loss):
        """Returns a loss usable outside of its differentiation, or None."""
        return loss

    def reachable(self, value, gradient):
        """Returns the result of `seen` if usable with `gradient`, else None."""
        return value

    def after(self, value, other):
        """Returns `value` after computing `other`: never in a step without a batch."""
        return value

    def copies(self, variables, wanted=None):
        """Returns the current values of variables, unaffected by later assignments.

        Where `wanted` is False, the result is ignored; static shapes may be unknown.
        """
        raise NotImplementedError

    def run_if(self, predicate, function, arguments, written):
        """Calls `function(arguments)` where `predicate` holds, in every replica.

        `arguments` are tensors, each replica's own; `function` may assign to `written`.
        """
        raise NotImplementedError

    def once(self, function):
        """Traces a function without arguments and results now, and never again."""
        return function

    def branch(self, predicate, fast, slow):
        """Returns `fast()` where `predicate` holds, else `slow()`; see `branches`.

        Both may assign to variables, and return a tuple of tensors.
        """
        raise NotImplementedError

    def restore(self, predicate, variables, values):
        """Assigns each replica's `values` to `variables` where `predicate` holds."""
        raise NotImplementedError

    def replace_if(self, predicate, variables, function):
        """Assigns the result of `function` where `predicate` holds.

        `function` returns a list of values and a scalar float32, positive if they are
        to be assigned. Returns that scalar, 0 where `predicate` does not hold.
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
    """Returns the current values of variables, a list of tensors."""
    if keras.config.backend() == "tensorflow":
        # There, `ops.convert_to_tensor` gives a variable that is read at each use.
        return [v.value.read_value() for v in variables]
    return [ops.convert_to_tensor(v) for v in variables]
