"""The loss of a step that neither scales it nor calls the model's `compute_loss`."""

import keras
from keras import ops

from keras_gradwatch.train_step.logs import is_float_tensor, is_scalar


class Differentiated:
    """Records what a step has differentiated, and the resulting gradients."""

    def __init__(self):
        self._noted = []  # of each: a loss, its gradients, and `only_these`

    def note(self, runner, targets, gradients=(), only_these=False):
        """Records that `targets` were differentiated, with the known `gradients`.

        If `only_these`, the loss counts only if one of the gradients is applied.
        """
        targets = targets if isinstance(targets, list | tuple) else [targets]
        if not all(is_float_tensor(target) for target in targets):
            return
        # A loss without reduction is differentiated as its sum. Its mean is recorded,
        # because it does not depend on the batch size.
        means = [t if is_scalar(t) else ops.mean(t) for t in targets]
        if means:
            loss = runner.seen(sum(means[1:], start=means[0]))
            self._noted.append((loss, list(gradients), only_these))

    def loss_of(self, gradients):
        """Returns the loss of the gradients that an optimizer applies, or None."""
        wanted = {id(g) for g in gradients if g is not None}
        own = [n for n in self._noted if any(id(g) in wanted for g in n[1])]
        # If the step has changed the gradients itself (clipping), none of them matches:
        # take the noted loss if there is exactly one.
        found = own or [n for n in self._noted if not n[2]]
        if len(found) != 1:
            return None
        self._noted = [n for n in self._noted if n is not found[0]]
        return found[0][0]


class LoggedLoss:
    """The loss among the logs of a step; created before the step.

    If a `keras.metrics.Mean` reports it, the loss is what the step added to that.
    """

    def __init__(self, model, runner):
        means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
        self._means = [m for m in means if m.name.endswith("loss")]
        values = runner.copies([v for m in self._means for v in (m.total, m.count)])
        self._before = list(zip(values[::2], values[1::2], strict=True))

    def of(self, logs):
        """Returns the loss, a scalar, or None if the logs do not contain it."""
        if not isinstance(logs, dict):
            return None
        losses = [key for key in logs if str(key).endswith("loss")]
        key = "loss" if "loss" in logs else losses[0] if len(losses) == 1 else None
        value = logs.get(key)
        if not is_float_tensor(value) or not is_scalar(value):
            return None
        value = ops.cast(value, "float32")
        for mean, (total, count) in zip(self._means, self._before, strict=True):
            if mean.name == key:
                added = ops.cast(mean.total, "float32") - ops.cast(total, "float32")
                weight = ops.cast(mean.count, "float32") - ops.cast(count, "float32")
                own = added / ops.where(weight > 0, weight, 1.0)
                value = ops.where(weight > 0, own, value)
        return value
