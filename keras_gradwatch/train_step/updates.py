"""Measuring the update that was made, within the step."""

from keras import ops

from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.statistics.measure import update_statistics
from keras_gradwatch.tensors.branch import cond, outlined
from keras_gradwatch.train_step.application import MISSING, constant


def measured(application, old, wanted):
    """Returns weight norms and update ratios, [P, 2], NaN where not measured."""
    if application.window.partial is not None:
        wanted = wanted & ~application.window.partial
    if learning_rate.rewrites(application.optimizer):
        wanted = constant(False, "bool")
    trained = application.trained

    def measure():
        first = [constrained(a, v) for a, v in zip(old, trained, strict=True)]
        return update_statistics(first, values_of(trained))

    def missing():
        return ops.zeros((len(trained), 2), "float32") + MISSING

    return cond(wanted, outlined(measure), missing)


def constrained(value, variable):
    """Applies the variable's constraint, if any, to a value of it.

    A constraint may change initial weights at any learning rate: that is no update.
    """
    constraint = getattr(variable, "constraint", None)
    if constraint is None:
        return value
    return constraint(ops.reshape(value, variable.shape))
