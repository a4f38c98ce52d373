"""A policy by itself, step after step, as `keras_gradwatch.train_step.step` asks it."""

import numpy as np
from keras import ops

from keras_gradwatch.policies.base import Measurement
from keras_gradwatch.statistics.measure import GRADIENT_NAMES, measure
from keras_gradwatch.statistics.names import ALWAYS, NAMES
from keras_gradwatch.tensors.sparse import SparseRows
from tests import steps


class Replay:
    """Asks a policy, and keeps its state.

    Args:
        policy: A `Policy`.
        traced: True for a step that is traced once, where the backend traces, for long
            sequences of dense gradients.
        weights: List of arrays, or None for ones.
        names: List of names, or None.

    Attributes:
        state: Dict of arrays.
        changed: Whether the policy changed the gradients of the last step.
    """

    def __init__(self, policy, weights=None, names=None, traced=False):
        self.policy, self.weights, self.names = policy, weights, names
        self.state, self.changed = None, None
        self.settings = {
            k: ops.convert_to_tensor(float(v)) for k, v in policy.settings.items()
        }
        if traced:
            self._step = steps.traced(self._step)

    def __call__(self, gradients):
        """Gradients of one step as the policy has them: arrays or `SparseRows`."""
        gradients = [_tensor(g) for g in gradients]
        if self.state is None:
            self.state = self.policy.initial_state(len(gradients))
        state = {k: ops.convert_to_tensor(v) for k, v in self.state.items()}
        changed, self.changed, new = self._step(gradients, state)
        self.changed = bool(self.changed)
        assert {k: (v.shape, v.dtype) for k, v in new.items()} == {
            k: (v.shape, v.dtype) for k, v in state.items()
        }
        self.state = {k: np.asarray(v) for k, v in new.items()}
        return changed if self.changed else gradients

    def norms(self, values):
        """Norms after the policy, of steps of one gradient with the norms `values`."""
        steps = [self([np.array([v], "float32")]) for v in values]
        return np.array([float(g[0]) for (g,) in steps])

    def _step(self, gradients, state):
        measured = self._measured(gradients)
        change, limits, new = self.policy.decide(measured, state, self.settings)
        change = change & measured.finite
        new = {k: ops.where(measured.finite, new[k], state[k]) for k in state}
        return self.policy.transform(gradients, limits), change, new

    def _measured(self, gradients):
        details = self.policy.reads_details
        names = GRADIENT_NAMES if details else ALWAYS
        matrix, total = measure(gradients, names, details)
        count, shapes = len(gradients), [_shape(g) for g in gradients]
        missing = ops.full((count,), np.nan)
        columns = dict(zip(names, ops.unstack(matrix, len(names), axis=1), strict=True))
        return Measurement(
            step=ops.convert_to_tensor(0),
            loss=ops.convert_to_tensor(1.0),
            global_norm=total,
            statistics=ops.stack([columns.get(n, missing) for n in NAMES], axis=1),
            finite=ops.isfinite(total),
            sizes=ops.convert_to_tensor([float(np.prod(s)) for s in shapes]),
            kernels=ops.convert_to_tensor([len(s) > 1 for s in shapes]),
            names=self.names or [f"layer_{i}/kernel" for i in range(count)],
            gradients=gradients,
            weights=self.weights or [np.ones(s, "float32") for s in shapes],
        )


def _tensor(gradient):
    is_one = isinstance(gradient, SparseRows) or ops.is_tensor(gradient)
    return gradient if is_one else ops.convert_to_tensor(np.asarray(gradient))


def _shape(gradient):
    if isinstance(gradient, SparseRows):
        row = gradient.rows.shape[1:]
        return (int(gradient.size // np.prod(row)), *row)
    return gradient.shape
