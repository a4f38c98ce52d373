"""Cuts of learning rates, as factors on whatever the user's callbacks set."""

import contextlib

import numpy as np
from keras import ops

from keras_gradwatch.keras_hooks import learning_rate
from keras_gradwatch.keras_hooks.optimizers import held_optimizers


class Rates:
    """Factors on float learning rates, in force while steps run.

    Between steps, a learning rate is what the user has set, so a callback that computes
    the next rate from the current one, or sets one for each step, does not undo a cut.
    When `fit` ends, the factor is multiplied in; when the next one begins, it is taken
    out again, unless another rate was set by then. A schedule has its own scale on the
    device; see `keras_hooks.learning_rate`. `model` is a function that returns the
    watched model.
    """

    def __init__(self, model, access):
        self._model, self._access = model, access
        self._factors = {}  # place of an optimizer -> factor, where one is cut
        self._merged = {}  # place -> its rate without the factor, and with it

    def reset(self):
        """Drops all factors; the rates stay as they are."""
        self._factors, self._merged = {}, {}

    def cut(self, factor, floor, least):
        """Multiplies all learning rates by `factor`, from the next step on.

        A factor above 1 undoes earlier cuts, and no more than these. No rate is cut
        below `floor`, nor below the fraction `least` of what it was without cuts.
        Returns the factor by which the first rate was multiplied, 1 if it was not.
        """
        optimizers = held_optimizers(self._model())
        limits = factor, floor, least
        return learning_rate.cut(optimizers, *limits, self._access, self._factors)

    @contextlib.contextmanager
    def in_force(self):
        """Applies the factors during one execution of the train function."""
        held = []
        for variable, factor in [] if self._merged else self._by_place().values():
            (rate,) = self._access.device_copies([variable])
            held.append((variable, rate, rate * factor))
            self._access.put_back([variable], [rate * factor])
        try:
            yield
        except BaseException:
            with contextlib.suppress(RuntimeError):  # JAX: the state is gone
                self._lift(held)
            raise
        self._lift(held)

    def merge(self):
        """Multiplies the factors into the rates."""
        if self._merged:
            return
        for place, (variable, factor) in self._by_place().items():
            rate = float(self._access.read(variable))
            self._access.write(variable, rate * factor)
            self._merged[place] = rate, float(self._access.read(variable))

    def split(self):
        """Undoes `merge`; a rate that was set since then loses its factor."""
        for place, (variable, _) in self._by_place().items():
            if place not in self._merged:
                continue
            rate, merged = self._merged[place]
            if float(self._access.read(variable)) == merged:
                self._access.write(variable, rate)
            else:
                del self._factors[place]
        self._merged = {}

    def state(self):
        """Returns what a new process continues from, a dict of lists."""
        found = {}
        for place, (variable, factor) in self._by_place().items():
            rate, merged = self._merged.get(place, (None, None))
            if rate is None:
                rate = float(self._access.read(variable))
                merged = float(np.float32(rate * factor))
            found[str(place)] = [factor, rate, merged]
        return found

    def restore(self, state):
        """Restores what `state` returned; a model saved after `fit` has the factor."""
        self._factors = {int(place): values[0] for place, values in state.items()}
        self._merged = {}
        for place, (variable, _) in self._by_place().items():
            _, rate, merged = state[str(place)]
            if float(self._access.read(variable)) == merged:
                self._access.write(variable, rate)

    def _lift(self, held):
        for variable, rate, cut in held:
            (now,) = self._access.device_copies([variable])
            # What the step itself has assigned is the rate from now on.
            if isinstance(now, np.ndarray):
                rate = rate if now == cut else now
            else:
                rate = ops.where(now == cut, rate, now)
            self._access.put_back([variable], [rate])

    def _by_place(self):
        """Returns a dict of a cut optimizer's place to its rate and its factor."""
        if not self._factors:
            return {}
        model = self._model()
        every = learning_rate.all_leaves(held_optimizers(model)) if model else []
        variables = {i: learning_rate.variable_of(leaf) for i, leaf in enumerate(every)}
        return {
            place: (variables[place], factor)
            for place, factor in self._factors.items()
            if variables.get(place) is not None
        }
