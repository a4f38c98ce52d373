"""A copy of a run on the host, for a rollback."""

from keras_gradwatch.keras_hooks.model_state import corruptible


class Snapshot:
    """A copy of weights, non-trainable and optimizer state, without learning rates."""

    def __init__(self, controller):
        self.step = controller.step
        self.variables = corruptible(controller.monitor.model)
        self.copies = controller.access.host_copies(self.variables)

    def put_back(self, controller):
        """Assigns the copies to the variables."""
        controller.access.put_back(self.variables, self.copies)
