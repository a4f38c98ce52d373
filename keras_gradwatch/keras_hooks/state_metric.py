"""Variables of ours in the state that Keras hands to a step on JAX."""

import keras


class StateMetric(keras.metrics.Metric):
    """A metric that measures nothing, and carries the monitor's variables.

    On JAX a step is a pure function: what it reads and writes must be in the state
    that `fit` hands it, and a model's metrics are. Nothing shows in logs, in `evaluate`
    or in what is saved.

    Attributes:
        carried: The variables, a list; to be changed between steps only.
    """

    def __init__(self):
        super().__init__(name="gradwatch")
        self.carry([])

    def carry(self, variables):
        """Carries these variables, in the place of all others."""
        # Past Keras's tracking, which would keep those that are carried no longer.
        object.__setattr__(self, "carried", list(variables))

    @property
    def variables(self):
        """The variables that are carried."""
        return list(self.carried)

    def reset_state(self):
        """Changes nothing: what the monitor knows outlives an epoch."""

    def update_state(self, *args, **kwargs):
        """Changes nothing; for steps that update every metric of the model."""

    def result(self):
        """Nothing, so that nothing is added to the logs."""
        return {}


def state_metric(model):
    """The `StateMetric` of a model; made at the first call.

    Keras tracks no metric that is set on a built subclassed model, and has no public
    way to add one: the list is private.
    """
    for metric in model._metrics:
        if isinstance(metric, StateMetric):
            return metric
    model._metrics.append(StateMetric())
    return model._metrics[-1]


def remove_state_metric(model):
    """Takes the `StateMetric` away from a model."""
    model._metrics[:] = [m for m in model._metrics if not isinstance(m, StateMetric)]
