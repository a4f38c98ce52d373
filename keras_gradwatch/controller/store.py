"""The variables on the device in which a watched model's state is kept."""

import numpy as np

from keras_gradwatch.backends.reading import read
from keras_gradwatch.controller.packing import Packed, pack_values, unpack_values


class Store:
    """Variables by name; some of them hold many values, each in a slot of its own.

    What a step uses costs time for each variable, in every call: so what is remembered
    is packed into a few.

    Args:
        capture: The module of `keras_gradwatch.backends` for the backend.
        model: Function of nothing that gives the watched model.
    """

    def __init__(self, capture, model):
        self._capture, self._model = capture, model
        self._variables = {}
        self._slots = {}  # what is in those that hold several values
        self._restored = {}  # values for variables that are not made yet

    def __contains__(self, name):
        return name in self._variables

    def __getitem__(self, name):
        return self._variables[name]

    def get(self, name):
        """The variable `name`, or None."""
        return self._variables.get(name)

    @property
    def every(self):
        """All variables made so far, a list."""
        return list(self._variables.values())

    @property
    def sites(self):
        """The names of those that hold what detectors and policy remember."""
        return [name for name in self._slots if name.startswith("site")]

    # -- in a step -----------------------------------------------------------------

    def variable(self, name, initial, dtype="float32"):
        """The variable `name`, made at the first call.

        Args:
            name: Its name; the state of a detector stays while its name does.
            initial: Value before the first step, array or number.
            dtype: Of the variable.

        Returns:
            A `keras.Variable` with `aggregation="only_first_replica"`.
        """
        initial = np.asarray(initial, dtype)
        found = self._variables.get(name)
        if found is None or tuple(found.shape) != initial.shape:
            restored = np.asarray(self._restored.pop(name, initial), dtype)
            if restored.shape == initial.shape:
                initial = restored
            found = self._capture.create_variable(
                f"gradwatch_{name.replace('/', '_')}", initial, dtype, self._model()
            )
            self._variables[name] = found
        return found

    def renew(self, name, initial):
        """A new variable `name`, whatever had that name before."""
        self._variables.pop(name, None)
        return self.variable(name, initial)

    def packed(self, name, initial):
        """The values that the variable `name` holds, `Packed`; a part of the step.

        Args:
            name: Its name. Where it is to hold others than before, it is made anew, and
                goes on with those that it has had, of the same name and size.
            initial: Dict of name to value before the first step.
        """
        initial = {n: np.asarray(value, "float32") for n, value in initial.items()}
        if not _alike(self._slots.get(name), initial):
            self._capture.on_host(lambda: self._pack_anew(name, initial))
        return self.view(name)

    def view(self, name):
        """The same of a variable that is there, as it is."""
        return Packed(self._variables[name], self._slots[name])

    def _pack_anew(self, name, initial):
        if name in self._slots:
            self._restored |= self.slots(name)
        known = {slot: self._restored.get(f"{name}/{slot}") for slot in initial}
        # A method whose state has another shape than before begins anew as a whole.
        strange = {
            _owner(slot)
            for slot, value in initial.items()
            if known[slot] is not None and np.shape(known[slot]) != value.shape
        }
        values = {
            slot: value
            if known[slot] is None or _owner(slot) in strange
            else known[slot]
            for slot, value in initial.items()
        }
        self.renew(name, pack_values(values))
        self._slots[name] = initial

    # -- on the host ---------------------------------------------------------------

    def sync(self):
        """Brings the variables up to date, before the host reads or writes them."""
        self._capture.sync(self._model())

    def slots(self, name):
        """What the packed variable `name` holds, a dict of arrays by `name/slot`."""
        if name not in self._slots:
            return {}
        values = unpack_values(read(self._variables[name]), self._slots[name])
        return {f"{name}/{slot}": value for slot, value in values.items()}

    def set_slots(self, name, values):
        """Assigns some of what a packed variable holds, if there is one."""
        if name in self._slots:
            self.sync()
            before = unpack_values(read(self._variables[name]), self._slots[name])
            for slot in before.keys() & values.keys():
                before[slot] = np.broadcast_to(values[slot], before[slot].shape)
            self._variables[name].assign(pack_values(before))

    def put(self, name, values):
        """Has a packed variable hold `values`, whatever it has held before."""
        self.sync()
        if _alike(self._slots.get(name), values):
            self._variables[name].assign(pack_values(values))
        else:
            self.renew(name, pack_values(values))
        self._slots[name] = values

    def fill(self, name, value):
        """Assigns `value` to every element of a variable, if there is one."""
        if name in self._variables:
            self.sync()
            variable = self._variables[name]
            variable.assign(np.full(variable.shape, value, variable.dtype))

    # -- over the end of the process -----------------------------------------------

    def state(self, wanted):
        """Values of the variables whose name is `wanted`, as nested lists by name."""
        self.sync()
        made = {n: read(v) for n, v in self._variables.items() if n not in self._slots}
        for name in self._slots:
            made |= self.slots(name)
        every = {**self._restored, **made}
        return {n: np.asarray(v).tolist() for n, v in every.items() if wanted(n)}

    def restore(self, state):
        """Goes on from what `state` returned, with variables that are yet to come."""
        self.sync()
        for name, value in state.items():
            if name in self._variables:
                self._variables[name].assign(value)
        for name in self._slots:
            begin = f"{name}/"
            mine = {n: v for n, v in state.items() if n.startswith(begin)}
            values = {n.removeprefix(begin): v for n, v in mine.items()}
            self.set_slots(name, values)
        self._restored = dict(state)


def _owner(slot):
    """The method that keeps `METHOD/FIELD`."""
    return slot.rpartition("/")[0]


def _alike(some, others):
    """Whether two dicts of arrays have the same names, shapes and order."""
    if some is None or list(some) != list(others):
        return False
    return all(np.shape(some[n]) == np.shape(others[n]) for n in some)
