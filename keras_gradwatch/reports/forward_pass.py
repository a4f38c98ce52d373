"""Where a forward pass stops being finite: the layer, the operation, the loss term."""

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_gradwatch.backends.patching import standing_in
from keras_gradwatch.tensors.processes import is_alone
from keras_gradwatch.tensors.reading import read, to_numpy

# Larger models, in parameters, are traced on request only.
SMALL = 10_000_000


@dataclass
class Output:
    """The output of one call.

    Attributes:
        name: Name of the layer, the operation of `keras.ops`, or the loss.
        kind: `"layer"`, `"operation"`, `"loss"` or `"input"`.
        within: Name of the layer that made the call, or None.
        nonfinite: Fraction of its values that are not finite.
        largest: Largest magnitude of its finite values, 0 where there are none.
        inputs: Smallest and largest finite value among the inputs of the call, or None.
    """

    name: str
    kind: str
    within: str | None
    nonfinite: float
    largest: float
    inputs: tuple[float, float] | None = None

    @property
    def place(self) -> str:
        """Its name, and where it was called, in words."""
        place = {
            "operation": f"`ops.{self.name}`",
            "input": f"`{self.name}`",
            "loss": f"loss `{self.name}`",
        }.get(self.kind, f"layer `{self.name}`")
        return f"{place} in `{self.within}`" if self.within else place


@dataclass
class ForwardPass:
    """A forward pass, call by call.

    Attributes:
        outputs: List of `Output`, in the order in which they were computed, so that a
            layer comes after the layers and the operations within it.
    """

    outputs: list[Output] = field(default_factory=list)

    @property
    def first_nonfinite(self) -> Output | None:
        """The first output that is not finite, or None."""
        return next((o for o in self.outputs if o.nonfinite > 0), None)

    @property
    def largest(self) -> Output | None:
        """The output with the largest finite value, or None."""
        return max(self.outputs, key=lambda output: output.largest, default=None)

    def __str__(self):
        found, largest = self.first_nonfinite, self.largest
        if largest is None:
            return "the forward pass has no numeric outputs"
        if found is None:
            return (
                f"all outputs are finite; the largest value is {largest.largest:.3g} "
                f"in {largest.place}"
            )
        words = f"the first non-finite values come from {found.place}"
        if found.kind == "input":
            return f"{words} ({found.nonfinite:.2%} of them)"
        if found.inputs is not None:
            low, high = found.inputs
            words += f", called with values from {low:.3g} to {high:.3g}"
        return words


def trace_forward(
    model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None
) -> ForwardPass:
    """Computes a forward pass eagerly, and looks at the output of each call.

    It sees every layer, at any depth, every function of `keras.ops` that a layer or a
    loss of your own calls, every loss, and `model.losses`. Neither weights nor metrics,
    seeds or moving averages change.

    Args:
        model: A built Keras model.
        x: Inputs, as a training step takes them: arrays or tensors, nested.
        y: Targets. Defaults to `None`, the losses are left out.
        sample_weight: Sample weights. Defaults to `None`.

    Returns:
        `ForwardPass`, whose `str` says where the first values that are not finite come
        from.

    Raises:
        ValueError: If the model is not built.
    """
    if not model.built:
        raise ValueError(
            "trace_forward: `model` must be built: call it on a batch first. "
            f"Received: the model {model.name!r}, not built"
        )
    values = [(v, read(v)) for v in model.variables]
    return compute(model, values, x, y, sample_weight)


def compute(model, values, x, y=None, sample_weight=None):
    """Does what `trace_forward` describes, with given values of the variables.

    Args:
        model: A built Keras model.
        values: List of pairs of a variable and its value, a NumPy array.
        x: Inputs.
        y: Targets, or None.
        sample_weight: Sample weights, or None.
    """
    tensor = keras.ops.convert_to_tensor
    x, y, sample_weight = keras.tree.map_structure(
        lambda leaf: None if leaf is None else tensor(leaf), (x, y, sample_weight)
    )
    mapping = [(v, tensor(value, v.dtype)) for v, value in values]
    recorder = _Recorder(model)
    recorder.note("x", "input", x)
    recorder.note("y", "input", y)
    scope = keras.StatelessScope(state_mapping=mapping, collect_losses=True)
    with scope, recorder.recording():
        outputs = model(x, training=True)
        if y is not None:
            loss = model.compute_loss(
                x=x, y=y, y_pred=outputs, sample_weight=sample_weight
            )
            for index, term in enumerate(model.losses):
                recorder.note(f"model.losses[{index}]", "loss", term)
            recorder.note("total", "loss", loss)
    return ForwardPass(recorder.outputs)


def explain_batch(monitor, data):
    """Where the forward pass of a bad batch stops being finite, as plain data.

    Args:
        monitor: The `GradientMonitor`, before the next step.
        data: What `fit` handed to the step.

    Returns:
        Dict of `words`, and of `name`, `kind` and `place` of the first `Output` that is
        not finite; empty where nothing is found, the model is large, or its weights
        are not finite by now.
    """
    model, access = monitor.model, monitor.store.access
    size = sum(math.prod(v.shape) for v in model.variables)
    if data is None or not is_alone() or size > SMALL:
        return {}
    access.sync()
    values = [(v, access.read(v)) for v in model.variables]
    if not all(
        np.isfinite(a.astype("float64")).all() for _, a in values if _is_float(a)
    ):
        return {}
    try:
        parts = keras.utils.unpack_x_y_sample_weight(data)
        found = compute(model, values, *parts)
    except Exception:
        return {}  # a model with a step of its own may not be callable like that
    first = found.first_nonfinite
    if first is None:
        return {}
    return {
        "words": str(found),
        "name": first.name,
        "kind": first.kind,
        "place": first.place,
    }


class _Recorder:
    """Takes in what layers, operations and losses return."""

    def __init__(self, model):
        self.outputs = []
        self._model, self._stack = model, []
        self._reading = False  # reading a value calls `keras.ops`, too

    def note(self, name, kind, value, inputs=None):
        """Takes in the value of a call, and what it was called with."""
        if self._reading:
            return
        self._reading = True
        arrays, inputs = _arrays(value), _range(inputs)
        self._reading = False
        if not arrays:
            return
        finite = [array[np.isfinite(array)] for array in arrays]
        size = sum(array.size for array in arrays)
        self.outputs.append(
            Output(
                name,
                kind,
                self._stack[-1] if self._stack else None,
                1 - sum(array.size for array in finite) / size,
                max(float(np.abs(array).max(initial=0.0)) for array in finite),
                inputs,
            )
        )

    @contextlib.contextmanager
    def recording(self):
        """Context in which calls are recorded."""
        with contextlib.ExitStack() as stack:
            call = self._of_layers(keras.Layer.__call__)
            stack.enter_context(standing_in(keras.Layer, __call__=call))
            call = self._of_nodes(keras.Operation.__call__)
            stack.enter_context(standing_in(keras.Operation, __call__=call))
            call = self._of_losses(keras.losses.Loss.__call__)
            stack.enter_context(standing_in(keras.losses.Loss, __call__=call))
            functions = {
                name: self._of_operations(name, function)
                for name, function in vars(keras.ops).items()
                if callable(function) and not isinstance(function, type)
            }
            stack.enter_context(standing_in(keras.ops, **functions))
            yield

    def _of_layers(self, call):
        def recorded(layer, *args, **kwargs):
            if layer is self._model:
                return call(layer, *args, **kwargs)
            self._stack.append(layer.name)
            try:
                output = call(layer, *args, **kwargs)
            finally:
                self._stack.pop()
            self.note(layer.name, "layer", output, (args, kwargs))
            return output

        return recorded

    def _of_nodes(self, call):
        """Of operations that are nodes of a functional model."""

        def recorded(node, *args, **kwargs):
            output = call(node, *args, **kwargs)
            if not isinstance(node, keras.Layer):
                self.note(node.name, "operation", output, (args, kwargs))
            return output

        return recorded

    def _of_operations(self, name, function):
        def recorded(*args, **kwargs):
            output = function(*args, **kwargs)
            self.note(name, "operation", output, (args, kwargs))
            return output

        return recorded

    def _of_losses(self, call):
        def recorded(loss, *args, **kwargs):
            self._stack.append(loss.name)
            try:
                output = call(loss, *args, **kwargs)
            finally:
                self._stack.pop()
            self.note(loss.name, "loss", output, args[1:2])
            return output

        return recorded


def _is_float(array):
    return array.dtype.kind in "fV"  # V: bfloat16


def _arrays(nested):
    """The float arrays among the leaves of a nested structure, in float64."""
    found = []
    for leaf in keras.tree.flatten(nested):
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            continue
        try:
            array = np.asarray(to_numpy(leaf))
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            continue  # symbolic, within a loop or a compiled function
        if _is_float(array) and array.size:
            found.append(array.astype("float64"))
    return found


def _range(nested):
    finite = [a[np.isfinite(a)] for a in _arrays(nested)]
    finite = [a for a in finite if a.size]
    if not finite:
        return None
    return float(min(a.min() for a in finite)), float(max(a.max() for a in finite))
