"""The device variables in which a watched model's state is kept."""

import numpy as np


class Store:
    """Variables by name; `model` is a function that returns the watched model."""

    def __init__(self, backend, model):
        self._backend, self._model = backend, model
        self.access = backend.access(model)
        self._variables = {}
        self._restored = {}  # values for variables that are not made yet

    def __contains__(self, name):
        return name in self._variables

    def get(self, name):
        """Returns the variable `name`, or None."""
        return self._variables.get(name)

    @property
    def every(self):
        """All variables created so far, a list."""
        return list(self._variables.values())

    def variable(self, name, initial, dtype="float32"):
        """Returns the variable `name`, made on first use and if its shape changes."""
        initial = np.asarray(initial, dtype)
        found = self._variables.get(name)
        if found is None or tuple(found.shape) != initial.shape:
            restored = np.asarray(self._restored.pop(name, initial), dtype)
            if restored.shape == initial.shape:
                initial = restored
            found = self._backend.create_variable(
                f"gradwatch_{name.replace('/', '_')}", initial, dtype, self._model()
            )
            self._variables[name] = found
        return found

    def forget(self, prefix):
        """Drops the variables whose names begin with `prefix`."""
        kept = self._variables.items()
        self._variables = {n: v for n, v in kept if not n.startswith(prefix)}

    def renew(self, name, initial):
        """Creates a new variable `name`, replacing the old one."""
        self._variables.pop(name, None)
        return self.variable(name, initial)

    def read(self, name):
        """Returns the value of the variable `name`, a NumPy array."""
        return self.access.read(self._variables[name])

    def write(self, name, value):
        """Assigns a value to the variable `name`, if it exists."""
        variable = self._variables.get(name)
        if variable is not None:
            self.access.write(variable, np.asarray(value, variable.dtype))

    def state(self, wanted):
        """Returns a dict of name to nested lists, for names that are `wanted`."""
        made = {name: self.read(name) for name in self._variables if wanted(name)}
        every = {**self._restored, **made}
        return {n: np.asarray(v).tolist() for n, v in every.items() if wanted(n)}

    def restore(self, state):
        """Restores what `state` returned, also for variables created later."""
        for name, value in state.items():
            self.write(name, value)
        self._restored = dict(state)
