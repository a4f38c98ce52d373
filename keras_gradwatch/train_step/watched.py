"""One training step of a model, from before it begins until it has been recorded."""

import keras
from keras import ops

from keras_gradwatch.keras_hooks.interception import intercept, is_stock
from keras_gradwatch.keras_hooks.model_state import restorable
from keras_gradwatch.train_step.frame import Frame


class Watched:
    """One training step; made before it begins, and finished when it has run.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        runner: `Runner` of the backend.
        step: The model's own bound `train_step`.

    Attributes:
        frame: The `Frame` of the step.
    """

    def __init__(self, model, monitor, runner, step):
        self._model, self._monitor, self._runner = model, monitor, runner
        with runner.scope():
            self.frame = Frame(model, monitor, runner, is_stock(step))
            self._kept = restorable(model) if monitor.plan.protects else []
            self._before = runner.copies(self._kept)

    def run(self, step, *arguments):
        """Runs the model's own step with what it applies being watched."""
        with intercept(self._model, self.frame):
            return step(*arguments)

    def finish(self, step, logs, data):
        """Records the step, and leaves its batch out of all state where it is skipped.

        Args:
            step: The model's own bound `train_step`.
            logs: What the step returned as its logs.
            data: The batch.

        Returns:
            The logs.
        """
        with self._runner.scope():
            logs = self._finish(step, logs)
            if self._monitor.plan.save_batch:
                keeper = self._monitor.keep_batches(self._runner.batch_keeper)
                event = self.frame.outcome.any_event
                keeper.trace(self._model, self._runner, event, data)
            return logs

    def _finish(self, step, logs):
        monitor, model, frame = self._monitor, self._model, self.frame
        protects = monitor.plan.protects
        # The logs of the stock step are the metrics; one of the user's may have others.
        seen = None
        if protects and not (is_stock(step) and _reports_metrics(model)):
            seen = model.get_metrics_result()
        frame.finish()
        monitor.traced()
        if protects and frame.outcome.applied:
            skipped = frame.outcome.skipped
            self._runner.restore(skipped, self._kept, self._before)
            frame.restore_sites()
            logs = _logs_again(model, monitor, logs, seen, skipped)
        return logs


def _reports_metrics(model):
    own = getattr(model.compute_metrics, "__func__", None)
    return own is keras.Model.compute_metrics


def _logs_again(model, monitor, logs, seen, skipped):
    """The step's logs as they are without a skipped batch.

    Metrics have been put back. Another number that a step of the user's own returns is,
    where the step is skipped, that of the last step that was not.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        logs: What the step returned.
        seen: The metrics as the step left them, a dict; None where the logs are these.
        skipped: Scalar bool.
    """
    if not isinstance(logs, dict):
        return logs
    fresh = model.get_metrics_result()
    result = dict(logs)
    for key, value in logs.items():
        if not _is_float_tensor(value):
            continue
        metric = ops.cast(fresh[key], value.dtype) if key in fresh else None
        if seen is None:
            result[key] = metric
        elif _is_scalar(value):
            last = monitor.variable(f"log/{key}", float("nan"))
            before = ops.cast(ops.convert_to_tensor(last), value.dtype)
            if metric is not None:
                # A metric has this name, too: is this the metric?
                same = _equal(value, ops.cast(seen[key], value.dtype))
                before = ops.where(same, metric, before)
            result[key] = ops.where(skipped, before, value)
            last.assign(ops.cast(result[key], "float32"))
    return result


def _is_float_tensor(value):
    if not ops.is_tensor(value):
        return False
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


def _is_scalar(value):
    # On TensorFlow, the rank may be unknown, and then the shape has no length.
    shape = value.shape
    return shape.rank == 0 if hasattr(shape, "rank") else len(shape) == 0


def _equal(a, b):
    return ops.equal(a, b) | (ops.isnan(a) & ops.isnan(b))
