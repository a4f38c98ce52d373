"""How the host reads and writes variables between two steps."""

import contextlib

from keras_gradwatch.tensors.processes import put_copy, take_copy
from keras_gradwatch.tensors.reading import read


class Access:
    """Reads and writes variables, where they hold their values all the time."""

    def sync(self):
        """Brings the variables up to date."""

    def read(self, variable):
        """The value of a variable, a NumPy array of its own."""
        return read(variable)

    def write(self, variable, value):
        """Assigns a value to a variable."""
        variable.assign(value)

    def is_whole(self, variable):
        """Whether this process can read all of a variable."""
        del variable
        return True

    def is_ready(self, variable):
        """Whether `read` gives the value without waiting for the device."""
        del variable
        return True

    def scope(self):
        """Context in which `ops` read the present values of variables."""
        return contextlib.nullcontext()

    def device_copies(self, variables):
        """Copies of the values of variables, which stay on the device."""
        raise NotImplementedError

    def put_back(self, variables, copies):
        """Assigns what `device_copies` gave."""
        for variable, copy in zip(variables, copies, strict=True):
            variable.assign(copy)

    def update_norms(self, old, variables):
        """How large the weights were, and how far they have moved since.

        Args:
            old: List of N tensors, as `device_copies` gave them.
            variables: List of the N variables.

        Returns:
            Two NumPy arrays [N], float32: ‖w‖ and ‖Δw‖.
        """
        raise NotImplementedError

    def host_copies(self, variables):
        """Copies of the values of variables in the host's memory."""
        self.sync()
        return [take_copy(variable, self.read) for variable in variables]

    def put_host_copies(self, variables, copies):
        """Assigns what `host_copies` gave."""
        self.sync()
        for variable, copy in zip(variables, copies, strict=True):
            put_copy(variable, copy)
