"""The variables on the device in which a watched model's state is kept."""

import numpy as np


class Store:
    """Variables by name.

    Args:
        backend: The module of `keras_gradwatch.backends` for the backend.
        model: Function of nothing that gives the watched model.
    """

    def __init__(self, backend, model):
        self._backend, self._model = backend, model
        self.access = backend.make_access(model)
        self._variables = {}
        self._restored = {}  # values for variables that are not made yet

    def __contains__(self, name):
        return name in self._variables

    def get(self, name):
        """The variable `name`, or None."""
        return self._variables.get(name)

    @property
    def every(self):
        """All variables made so far, a list."""
        return list(self._variables.values())

    def variable(self, name, initial, dtype="float32"):
        """The variable `name`, made at the first call, and where its shape is another.

        Args:
            name: Its name.
            initial: Value before the first step, array or number.
            dtype: Of the variable.

        Returns:
            A `keras.Variable`.
        """
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
        """A new variable `name`, whatever had that name before."""
        self._variables.pop(name, None)
        return self.variable(name, initial)

    def read(self, name):
        """The value of the variable `name`, a NumPy array."""
        return self.access.read(self._variables[name])

    def write(self, name, value):
        """Assigns a value to the variable `name`, if there is one."""
        variable = self._variables.get(name)
        if variable is not None:
            self.access.write(variable, np.asarray(value, variable.dtype))

    def state(self, wanted):
        """Values of the variables whose name is `wanted`, as nested lists by name."""
        made = {name: self.read(name) for name in self._variables if wanted(name)}
        every = {**self._restored, **made}
        return {n: np.asarray(v).tolist() for n, v in every.items() if wanted(n)}

    def restore(self, state):
        """Restores what `state` returned, also for variables that do not exist yet."""
        for name, value in state.items():
            self.write(name, value)
        self._restored = dict(state)
