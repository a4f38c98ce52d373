"""A dry run: trains a copy of a model for a few steps, and reports on it."""

import contextlib
import random
import sys
from typing import Any

import keras
import numpy as np

from keras_gradwatch.callbacks.gradwatch import GradWatch
from keras_gradwatch.reports.diagnosis.causes import clip
from keras_gradwatch.reports.report import Report, explain
from keras_gradwatch.tensors.reading import read

# Learning rates of the range test: this many per decade, this many decades each way.
PER_DECADE, REACH = 4, 3
# Largest fraction of a kernel that one update may change at a good rate.
LARGEST_UPDATE = 0.05


def diagnose(
    model: keras.Model,
    x: Any,
    y: Any = None,
    steps: int = 100,
    batch_size: int = 32,
    find_rate: bool = False,
) -> Report:
    """Trains a copy of a model for a few steps, and reports on it as `GradWatch` does.

    The model itself, its weights, its optimizer and the random state of Python, NumPy
    and PyTorch do not change.

    Args:
        model: A compiled Sequential or Functional model, or one that
            `keras.models.clone_model` can copy. The copy starts with its weights and
            optimizer state.
        x: Inputs: an array, or a list or a dict of arrays.
        y: Targets, like `x`. If `None`, the model computes its loss from the inputs.
            Defaults to `None`.
        steps: Number of steps, >= 1. The rows are drawn in the same pseudorandom order
            each time. Defaults to `100`.
        batch_size: Rows of a step, >= 1. Defaults to `32`.
        find_rate: Whether to run a learning rate range test, too: one step from the
            same weights with each of 25 learning rates, from a thousandth to a thousand
            times that of the optimizer. Defaults to `False`.

    Returns:
        `Report`. `report.clip` is a limit for the global norm, below which 90% of the
        healthy steps stay; None after fewer than 20 of them. With `find_rate`,
        `report.rate` is the largest learning rate whose update changes every kernel by
        less than 5% and does not raise the loss (None: there was none), and
        `report.rate_curve` a dict of the arrays `rate`, `update` (the largest relative
        change of a kernel in the step) and `loss` (after the step, of the same batch),
        and `first_loss`, the loss before it.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If `model` is not compiled or cannot be copied, or another argument
            is out of its range.

    Example:

    ```python
    report = keras_gradwatch.diagnose(model, x, y, find_rate=True)
    print(report, report.rate, report.clip)
    ```
    """
    _check(model, steps, batch_size, find_rate)
    rows = _rows(x, y)
    with _same_random_state():
        copy = _copy(model)
        batches = _Batches(x, y, rows, steps, min(batch_size, rows))
        watch = GradWatch(verbose=0, max_rewinds=0)
        copy.fit(batches, verbose=0, shuffle=False, callbacks=[watch])
        summary = watch.summary
        assert summary is not None  # `GradWatch` keeps one
        summary.model["dry_run"] = True
        report = explain(summary)
        report.clip = clip(summary)
        if find_rate:
            report.rate_curve = _range_test(model, batches[0])
            report.rate = _largest_good(report.rate_curve)
    return report


class _Batches(keras.utils.PyDataset):
    """Batches of rows, drawn in the same pseudorandom order each time."""

    def __init__(self, x, y, rows, steps, size):
        super().__init__()
        self._data, self._count = (x, y), steps
        order, epochs = np.random.default_rng(0), -(-steps * size // rows)
        drawn = np.concatenate([order.permutation(rows) for _ in range(epochs)])
        self._chosen = drawn[: steps * size].reshape(steps, size)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        def pick(part):
            return None if part is None else np.asarray(part)[self._chosen[index]]

        x, y = (keras.tree.map_structure(pick, part) for part in self._data)
        return (x,) if y is None else (x, y)


def _check(model, steps, batch_size, find_rate):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "diagnose: `model` must be a Keras model. "
            f"Received: model={model!r} (of type {type(model).__name__})"
        )
    if not model.compiled:
        raise ValueError(
            "diagnose: `model` must be compiled: call `model.compile(...)` first. "
            f"Received: the model {model.name!r}, not compiled"
        )
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or value < 1:
            raise ValueError(
                f"diagnose: `{name}` must be an integer >= 1. "
                f"Received: {name}={value!r}"
            )
    if not isinstance(find_rate, bool):
        raise ValueError(
            "diagnose: `find_rate` must be True or False. "
            f"Received: find_rate={find_rate!r}"
        )


def _rows(x, y):
    """Returns the number of rows, which must be the same in all arrays."""
    counts = {}
    for name, part in (("x", x), ("y", y)):
        found = [a for a in keras.tree.flatten(part) if a is not None]
        if (name == "x" and not found) or any(not hasattr(a, "shape") for a in found):
            raise ValueError(
                f"diagnose: `{name}` must be an array, or a list or a dict of arrays. "
                f"Received: {name} of type {type(part).__name__}"
            )
        for array in found:
            counts.setdefault(int(array.shape[0]) if len(array.shape) else 0, name)
    if len(counts) != 1 or 0 in counts:
        listed = ", ".join(f"{count} in `{name}`" for count, name in counts.items())
        raise ValueError(
            "diagnose: `x` and `y` must have the same number of rows, at least 1. "
            f"Received: {listed}"
        )
    return next(iter(counts))


@contextlib.contextmanager
def _same_random_state():
    """Restores the random state of Python, NumPy and PyTorch at the end."""
    python, numpy_ = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    state = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy_)
        if torch is not None:
            torch.set_rng_state(state)


def _copy(model, rate=None):
    """Returns a compiled copy with the same weights, at a constant `rate` if given."""
    try:
        copy = keras.models.clone_model(model)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "diagnose: `model` must be one that `keras.models.clone_model` can copy. "
            f"Received: {model.name!r} of type {type(model).__name__}: {error}"
        ) from error
    config = model.optimizer.get_config()
    if rate is not None:
        config = {**config, "learning_rate": rate}
    copy.compile(
        optimizer=type(model.optimizer).from_config(config),
        loss=model.loss,
        metrics=_metrics(model),
        run_eagerly=model.run_eagerly,
        jit_compile=model.jit_compile,
    )
    if model.built:
        copy.set_weights([read(v) for v in model.weights])
        if model.optimizer.built:
            copy.optimizer.build(copy.trainable_variables)
            pairs = zip(
                copy.optimizer.variables, model.optimizer.variables, strict=True
            )
            for new, old in pairs:
                if rate is None or "learning_rate" not in old.path:
                    new.assign(read(old))
    return copy


def _metrics(model):
    """Returns metrics like those of a model, without their state."""
    try:
        given = (model.get_compile_config() or {}).get("metrics")
        return keras.saving.deserialize_keras_object(given)
    except (AttributeError, TypeError, ValueError):
        return None  # of the user's own; they are no part of the diagnosis


def _range_test(model, batch):
    """Runs one step per learning rate from the same weights; a dict of arrays."""
    middle = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    powers = np.linspace(-REACH, REACH, 2 * REACH * PER_DECADE + 1)
    rates = abs(middle) * 10.0**powers
    copy = _copy(model, float(rates[0]))
    copy.train_on_batch(*batch)  # builds what is not built yet
    if model.built:
        copy.set_weights([read(v) for v in model.weights])
    # With the seeds of dropout: all rates see the same units.
    first = [read(v) for v in copy.variables]
    slots = [read(v) for v in copy.optimizer.variables]
    if not model.optimizer.built:
        slots = [np.zeros_like(slot) for slot in slots]
    begin = _loss(copy, batch)
    updates, losses = [], []
    for rate in rates:
        variables = [*copy.variables, *copy.optimizer.variables]
        for variable, value in zip(variables, [*first, *slots], strict=True):
            variable.assign(value)
        copy.optimizer.learning_rate = float(rate)
        old = [read(v) for v in copy.trainable_variables]
        with _same_random_state():  # PyTorch's dropout draws from it
            copy.train_on_batch(*batch)
        updates.append(_largest_update(old, copy.trainable_variables))
        losses.append(_loss(copy, batch))
    return {
        "rate": rates,
        "update": np.array(updates),
        "loss": np.array(losses),
        "first_loss": begin,
    }


def _loss(model, batch):
    result = model.test_on_batch(*batch, return_dict=True)
    return float(result["loss"])


def _largest_update(old, variables):
    """Returns the largest fraction of a kernel's norm that a step has changed."""
    shares = [0.0]
    for before, variable in zip(old, variables, strict=True):
        if before.ndim > 1:
            moved = np.linalg.norm(keras.ops.convert_to_numpy(variable) - before)
            shares.append(float(moved / max(np.linalg.norm(before), 1e-30)))
    return float(np.max(shares))


def _largest_good(curve):
    """Returns the largest learning rate with small updates and no rise of the loss."""
    good = (curve["update"] < LARGEST_UPDATE) & (curve["loss"] <= curve["first_loss"])
    return float(curve["rate"][good].max()) if good.any() else None
