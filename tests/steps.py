"""Training steps of one's own, on the backend in use."""

import contextlib

import keras

BACKEND = keras.config.backend()


def minimize(optimizer, variables, compute):
    """Takes one step of an optimizer; not on JAX, where a step changes no variable.

    Args:
        optimizer: The optimizer.
        variables: List of `keras.Variable`, those that it trains, or a function that
            gives it when the loss has been computed, and with it the model built.
        compute: Function of nothing that gives a scalar loss, or a tuple of which the
            first is one.

    Returns:
        What `compute` gave.
    """

    def scaled():
        nonlocal result
        result = compute()
        loss = result[0] if isinstance(result, tuple) else result
        return optimizer.scale_loss(loss)

    result = None
    found = gradients(scaled, variables)
    with _no_gradients():
        optimizer.apply(found, _now(variables))
    return result


def gradients(compute, variables):
    """The gradients of a loss, a list of tensors or sparse gradients.

    Args:
        compute: Function of nothing that gives the loss, a scalar.
        variables: List of `keras.Variable` that it is differentiated by, or a function
            that gives it.
    """
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = compute()
        return tape.gradient(loss, _values(variables))
    if BACKEND == "torch":
        import torch

        loss = compute()
        return list(torch.autograd.grad(loss, _values(variables)))
    import jax

    def of_values(values):
        with keras.StatelessScope(zip(variables, values, strict=True)):
            return compute()

    return jax.grad(of_values)(_values(variables))


def _now(variables):
    return variables() if callable(variables) else variables


def _values(variables):
    return [v.value for v in _now(variables)]


def traced(function):
    """A function of tensors, traced once for each of their shapes; not on PyTorch."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    return function


class OwnStep:
    """Base of a `keras.Model`, named before it, with a `train_step` of its own.

    A subclass has `own_loss(data)`, which gives the loss and the predictions, and
    `own_logs(data, loss, predictions)`, which gives the logs and may update metrics.
    """

    if BACKEND == "jax":

        def train_step(self, state, data):
            import jax

            trained, kept, slots, metrics = state

            def compute(trained):
                with self._scope(trained, kept, slots) as scope:
                    loss, predictions = self.own_loss(data)
                    scaled = self.optimizer.scale_loss(loss)
                new = [scope.get_current_value(v) for v in self.non_trainable_variables]
                return scaled, (loss, predictions, new)

            differentiate = jax.value_and_grad(compute, has_aux=True)
            (_, (loss, predictions, kept)), gradients = differentiate(trained)
            trained, slots = self.optimizer.stateless_apply(slots, gradients, trained)
            with keras.StatelessScope(
                zip(self.metrics_variables, metrics, strict=True)
            ) as scope:
                logs = self.own_logs(data, loss, predictions)
            metrics = [scope.get_current_value(v) for v in self.metrics_variables]
            return logs, (trained, kept, slots, metrics)

        def _scope(self, trained, kept, slots):
            pairs = [
                *zip(self.trainable_variables, trained, strict=True),
                *zip(self.non_trainable_variables, kept, strict=True),
                *zip(self.optimizer.variables, slots, strict=True),
            ]
            return keras.StatelessScope(pairs)

    else:

        def train_step(self, data):
            loss, predictions = minimize(
                self.optimizer,
                lambda: self.trainable_variables,
                lambda: self.own_loss(data),
            )
            return self.own_logs(data, loss, predictions)


def _no_gradients():
    """Context in which PyTorch lets variables that are trained be assigned."""
    if BACKEND != "torch":
        return contextlib.nullcontext()
    import torch

    return torch.no_grad()
