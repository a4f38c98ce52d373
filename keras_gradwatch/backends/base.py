"""What the rest of the package asks of a backend."""

from keras_gradwatch.backends.batch import RecentBatches


class Backend:
    """The operations that differ between TensorFlow, JAX and PyTorch.

    The defaults are those of a backend on which Keras builds the model before its first
    step, and which supports every model and strategy that Keras does.
    """

    def check(self, model):
        """Raises `ValueError` if a model cannot be watched as it is compiled."""

    def check_strategy(self, model):
        """Raises `ValueError` if the strategy of a model is not supported."""

    def batches(self, monitor):
        """Returns the object that keeps the batch in which an incident begins."""
        return RecentBatches(monitor)

    def access(self, model):
        """Returns the `Access` to the variables of `model()` between two steps."""
        raise NotImplementedError

    def runner(self, model, *arguments):
        """Returns the `Runner` of one step, called inside the step.

        `arguments` are those of the step. None: this step cannot be watched.
        """
        raise NotImplementedError

    def create_variable(self, name, initial, dtype, model):
        """Makes a `keras.Variable` that belongs to no layer, equal on all devices.

        `initial` is a NumPy array, the first value.
        """
        raise NotImplementedError

    def write_row(self, ring, index, row):
        """Writes `row` into row `index` of the variable `ring`, in place if it can."""
        raise NotImplementedError

    def on_host(self, function):
        """Calls `function()` outside of the step that is being traced."""
        return function()

    def differentiation(self):
        """Returns a context that records what the step differentiates."""
        raise NotImplementedError

    def prepare(self, model, step, *arguments):
        """Creates all variables before the trace, so that the step is traced once."""

    def build_for(self, model, iterator):
        """Builds a model for the batches of an iterator, before its first step."""

    def first_batch(self, model, iterator):
        """Returns the next batch, and an iterator that still yields it.

        The batch is None where it cannot be read.
        """
        raise NotImplementedError
