"""The scalars of recorded steps, by name."""

from keras_gradwatch.records import plots
from keras_gradwatch.records.rows import APPLIED, OVERFLOWED


class StepScalars:
    """The scalars of T steps, shared by `History` and `Run`.

    A subclass has `_scalar(name)`, a float32 array [T], and `_columns()`, a dict of
    arrays [T], besides `steps`, `variables` and `events`.
    """

    @property
    def global_norm(self):
        """float32 array [T], before clipping."""
        return self._scalar("global_norm")

    @property
    def clipped_norm(self):
        """float32 array [T], after clipping."""
        return self._scalar("clipped_norm")

    @property
    def loss(self):
        """float32 array [T], each step's own loss."""
        return self._scalar("loss")

    @property
    def learning_rate(self):
        """float32 array [T], the effective learning rate of each step."""
        return self._scalar("learning_rate")

    @property
    def applied(self):
        """bool array [T], False where the update was skipped or reverted."""
        return self._scalar("outcome") == APPLIED

    @property
    def loss_scale(self):
        """float32 array [T], the factor of the loss."""
        return self._scalar("loss_scale")

    @property
    def held(self):
        """bool array [T], True where the trust region limited the update."""
        return self._scalar("held") > 0

    @property
    def trust_radius(self):
        """float32 array [T], the limit on ‖Δw‖ / ‖w‖ of each kernel."""
        return self._scalar("trust_radius")

    @property
    def overflowed(self):
        """bool array [T], True where a dynamic loss scale handled an overflow."""
        return self._scalar("outcome") == OVERFLOWED

    def plot(self):
        """Plots loss, norms and learning rate, a `matplotlib.figure.Figure`."""
        return plots.plot(self)

    def to_dataframe(self):
        """The steps as a `pandas.DataFrame`, with their numbers as index."""
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "`to_dataframe` needs pandas: `pip install pandas`."
            ) from error
        return pandas.DataFrame(self._columns()).set_index("step")

    def _known(self, name):
        """The index of a variable.

        Raises:
            KeyError: If no variable has this name.
        """
        names = list(self.variables)
        if name not in names:
            known = ", ".join(names)
            raise KeyError(f"no variable is called {name!r}; there are: {known}")
        return names.index(name)
