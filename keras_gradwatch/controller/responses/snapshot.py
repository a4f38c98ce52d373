"""A copy of a run on the host, to go back to."""


class Snapshot:
    """A run as it was before a step.

    It holds weights, non-trainable state, and all that the optimizers keep but their
    learning rates.

    Args:
        controller: The `Controller` of the run.

    Attributes:
        step: The step.
        variables: List of variables.
        copies: List of copies of their values, on the host.
    """

    def __init__(self, controller):
        self.step = controller.step
        self.variables = controller.harmed()
        self.copies = controller.access.host_copies(self.variables)

    def put_back(self, controller):
        """Assigns the copies to the variables."""
        controller.access.put_host_copies(self.variables, self.copies)
