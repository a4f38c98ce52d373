"""The logs of a step whose batch is skipped."""

import keras
from keras import ops

# Maximum number of scalars in a custom step's logs whose last values are kept.
MAX_LOGS = 32


def logs_without_skipped(model, monitor, logs, seen, skipped):
    """Returns the logs of a step without the batch, if that is skipped.

    Metrics have already been restored. For other numbers that a custom step returns,
    those of the last step that was not skipped are used. `seen` are the metrics before
    they were restored; None if `logs` are the metrics.
    """
    if not isinstance(logs, dict):
        return logs
    fresh = model.get_metrics_result()
    if seen is None:
        fresh = metrics_result(model, fresh)
    result, own = dict(logs), []
    for key, value in logs.items():
        if not is_float_tensor(value):
            continue
        if seen is None:
            result[key] = ops.cast(fresh[key], value.dtype) if key in fresh else None
        elif is_scalar(value) and len(own) < MAX_LOGS:
            own.append(key)
    if not own:
        return result
    last = monitor.variable("logs")
    before = list(ops.unstack(ops.copy(last), MAX_LOGS))
    for place, key in enumerate(own):
        value, old = logs[key], ops.cast(before[place], logs[key].dtype)
        if key in fresh:
            # A metric has this name, too: is this the metric?
            metric = ops.cast(fresh[key], value.dtype)
            same = _equal(value, ops.cast(seen[key], value.dtype))
            old = ops.where(same, metric, old)
        result[key] = ops.where(skipped, old, value)
        before[place] = ops.cast(result[key], "float32")
    last.assign(ops.stack(before))
    return result


def metrics_result(model, results):
    """Returns metrics of a stock step, NaN instead of 0 if no batch was counted."""
    count = batches_counted(model)
    if count is None:
        return results
    known = count / count  # 1, or NaN; without a constant, which PyTorch would copy
    return {
        key: value * ops.cast(known, value.dtype) if is_float_tensor(value) else value
        for key, value in results.items()
    }


def batches_counted(model):
    """Returns the count of the loss's running mean, a scalar; None if unknown."""
    means = (m for m in model.metrics if isinstance(m, keras.metrics.Mean))
    loss = next((m for m in means if m.name == "loss"), None)
    return None if loss is None else ops.convert_to_tensor(loss.count)


def is_float_tensor(value):
    """Returns whether a value is a floating-point tensor."""
    if not ops.is_tensor(value):
        return False
    return keras.backend.is_float_dtype(keras.backend.standardize_dtype(value.dtype))


def is_scalar(value):
    """Returns whether a tensor is known to be a single number."""
    # On TensorFlow, the rank may be unknown, and then the shape has no length.
    shape = value.shape
    return shape.rank == 0 if hasattr(shape, "rank") else len(shape) == 0


def _equal(a, b):
    return ops.equal(a, b) | (ops.isnan(a) & ops.isnan(b))
