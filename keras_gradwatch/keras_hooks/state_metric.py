"""Variables of ours that travel with a model's metrics (JAX)."""

import keras


class Passenger(keras.metrics.Metric):
    """A metric that measures nothing, and brings the monitor's variables along.

    On JAX a step is a pure function: what it reads and writes must be in the state
    that `fit` hands it, and a model's metrics are. Nothing shows in logs, in `evaluate`
    or in what is saved.

    Attributes:
        riders: The variables, a list; to be changed between steps only.
    """

    def __init__(self):
        super().__init__(name="gradwatch")
        self.carry([])

    def carry(self, variables):
        """Has these variables ride along, in the place of all others."""
        # Past Keras's tracking, which would keep those that ride no longer.
        object.__setattr__(self, "riders", list(variables))

    @property
    def variables(self):
        """The variables that ride along."""
        return list(self.riders)

    def reset_state(self):
        """Changes nothing: what the monitor knows outlives an epoch."""

    def update_state(self, *args, **kwargs):
        """Changes nothing; for steps that update every metric of the model."""

    def result(self):
        """Nothing, so that nothing is added to the logs."""
        return {}
