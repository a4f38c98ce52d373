"""How the host reads and writes variables between two steps."""

import contextlib

from keras_gradwatch.tensors.reading import read


class Access:
    """Reads and writes variables that always hold their own values."""

    def read(self, variable):
        """Returns the value of a variable as a new NumPy array."""
        return read(variable)

    def write(self, variable, value):
        """Assigns a value to a variable."""
        variable.assign(value)

    def is_whole(self, variable):
        """Returns whether this process can read all of a variable."""
        return True

    def is_ready(self, variable):
        """Returns whether `read` gives the value without waiting for the device."""
        return True

    def scope(self):
        """Returns a context in which `ops` read the current values of variables."""
        return contextlib.nullcontext()

    def device_copies(self, variables):
        """Returns copies of the values of variables, which stay on the device."""
        raise NotImplementedError

    def put_back(self, variables, copies):
        """Assigns the result of `device_copies` or `host_copies`."""
        for variable, copy in zip(variables, copies, strict=True):
            variable.assign(copy)

    def update_norms(self, old, variables):
        """Returns ‖w‖ of the copies `old` and ‖Δw‖ since, NumPy float32 [N] each."""
        raise NotImplementedError

    def host_copies(self, variables):
        """Returns copies of the values of variables in host memory."""
        return [self.read(variable) for variable in variables]
