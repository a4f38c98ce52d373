"""The update that was made, measured within the step."""

from keras import ops

from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.statistics.measure import update_statistics
from keras_gradwatch.tensors.branch import cond, outlined
from keras_gradwatch.train_step.application import MISSING, constant


def measured(application, old, wanted):
    """Weight norms and update ratios of the watched variables.

    Args:
        application: `Application`.
        old: List of P tensors, the weights before the update.
        wanted: Scalar bool, whether the update is measured.

    Returns:
        Tensor [P, 2], NaN where nothing was measured.
    """
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
    """Weights as their constraint has them, if they have one.

    What a constraint does to the first weights, which need not satisfy it, is no
    update: it moves them at a rate of zero, too.
    """
    constraint = getattr(variable, "constraint", None)
    if constraint is None:
        return value
    return constraint(ops.reshape(value, variable.shape))
