"""SciPy's L-BFGS on the loss and the gradients of a Keras model (TensorFlow)."""

import keras
import numpy as np
from scipy.optimize import minimize


class Objective:
    """Loss and gradient on the full batch, as functions of one vector of weights.

    Args:
        model: A built Keras model, whose weights are set to those that are asked about.
        loss: A `keras.losses.Loss`.
        x: All inputs.
        y: All targets.

    Attributes:
        passes: How often it was evaluated, each once forward and back over all rows.
        norms: Norm of the gradient in each of them.
    """

    def __init__(self, model, loss, x, y):
        import tensorflow as tf

        self.variables = model.trainable_variables
        self.norms = []

        @tf.function
        def evaluate():
            with tf.GradientTape() as tape:
                value = loss(y, model(x, training=True))
            return value, tape.gradient(value, self.variables)

        self._evaluate = evaluate

    @property
    def passes(self):
        return len(self.norms)

    def get(self):
        """All weights, float64 [N]."""
        return _flat(self.variables)

    def set(self, weights):
        """Writes a vector [N] back into the model."""
        ends = np.cumsum([np.prod(v.shape) for v in self.variables])
        parts = np.split(weights, ends[:-1])
        for variable, part in zip(self.variables, parts, strict=True):
            variable.assign(part.reshape(variable.shape))

    def __call__(self, weights):
        self.set(weights)
        value, gradients = self._evaluate()
        gradient = _flat(gradients)
        self.norms.append(float(np.linalg.norm(gradient)))
        return float(value), gradient


def fit(objective, passes, after_pass):
    """Minimizes an `Objective`, and leaves its model with what was found.

    Args:
        objective: The `Objective`.
        passes: After so many evaluations no iteration is begun.
        after_pass: Function without arguments, called once for each evaluation, while
            the model holds the newest weights that the line search has accepted.
    """
    told = 0
    accepted = objective.get()

    def catch_up(until):
        nonlocal told
        objective.set(accepted)
        while told < until:
            after_pass()
            told += 1

    def after_iteration(weights):
        nonlocal accepted
        # Until its last evaluation a line search has accepted nothing.
        catch_up(objective.passes - 1)
        accepted = np.array(weights)
        catch_up(objective.passes)

    minimize(
        objective,
        accepted,
        jac=True,
        method="L-BFGS-B",
        callback=after_iteration,
        options={"maxfun": passes, "maxiter": passes},
    )
    # A line search that came to nothing.
    catch_up(objective.passes)


def _flat(tensors):
    arrays = [keras.ops.convert_to_numpy(tensor).ravel() for tensor in tensors]
    return np.concatenate(arrays).astype("float64")
