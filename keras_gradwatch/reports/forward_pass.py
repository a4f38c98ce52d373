"""Where a forward pass stops being finite: the layer, the operation, the loss term."""

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_gradwatch.keras_hooks.patching import standing_in
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
        inputs: Smallest and largest finite value among the inputs of the call; None
            where there are none, or the output is finite.
        source: Whether non-finite values come from this call: its inputs were finite,
            or infinite where it returns NaN. False if an enclosing call returns only
            finite values, such as attention with an infinite mask.
    """

    name: str
    kind: str
    within: str | None
    nonfinite: float
    largest: float
    inputs: tuple[float, float] | None = None
    source: bool = False

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
        """The first output that is a source of non-finite values, or None."""
        return next((o for o in self.outputs if o.source), None)

    @property
    def largest(self) -> Output | None:
        """The output with the largest finite value, or None."""
        return max(self.outputs, key=lambda output: output.largest, default=None)

    def __str__(self):
        found, largest = self.first_nonfinite, self.largest
        if largest is None:
            return "the forward pass has no numeric outputs"
        if found is None:
            masked = any(output.nonfinite for output in self.outputs)
            return (
                f"all outputs{' of the model' if masked else ''} are finite; the "
                f"largest value is {largest.largest:.3g} in {largest.place}"
            )
        if found.kind == "input":
            share = f"{found.nonfinite:.2%} of its values"
            return f"the first non-finite values are in {found.place} ({share})"
        words = f"the first non-finite values come from {found.place}"
        if found.inputs is not None:
            low, high = found.inputs
            words += f", called with values from {low:.3g} to {high:.3g}"
        return words


def trace_forward(
    model: keras.Model, x: Any, y: Any = None, sample_weight: Any = None
) -> ForwardPass:
    """Computes a forward pass eagerly, and checks every output for non-finite values.

    It checks every layer, every function of `keras.ops` that a layer or a loss of your
    own calls, every loss, and `model.losses`. Neither weights nor metrics, seeds or
    moving averages change.

    Args:
        model: A built Keras model.
        x: Inputs, as a training step takes them: arrays or tensors, nested.
        y: Targets. If `None`, the losses are left out. Defaults to `None`.
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


def compute(model, values, x, y=None, sample_weight=None, first_only=False):
    """Does what `trace_forward` describes, with given values of the variables.

    Args:
        model: A built Keras model.
        values: List of pairs of a variable and its value, a NumPy array.
        x: Inputs.
        y: Targets, or None.
        sample_weight: Sample weights, or None.
        first_only: Whether to stop recording after the first source of non-finite
            values; only the calls that enclose it are still recorded.
    """
    tensor = keras.ops.convert_to_tensor
    x, y, sample_weight = keras.tree.map_structure(
        lambda leaf: None if leaf is None else tensor(leaf), (x, y, sample_weight)
    )
    mapping = [(v, tensor(value, v.dtype)) for v, value in values]
    recorder = _Recorder(model, first_only)
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
    try:
        variables = model.variables
        size = sum(math.prod(v.shape) for v in variables)
        if data is None or not is_alone() or size > SMALL:
            return {}
        values = [(v, access.read(v)) for v in variables]
        if _measure([value for _, value in values]).nonfinite:
            return {}
        # A loss of several outputs updates metrics, whose values Keras keeps in the
        # state on JAX.
        values += [(v, access.read(v)) for v in model.metrics_variables]
        parts = keras.utils.unpack_x_y_sample_weight(data)
        found = compute(model, values, *parts, first_only=True)
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
    """Records what layers, operations and losses return."""

    def __init__(self, model, first_only=False):
        self.outputs = []
        self._model, self._first_only = model, first_only
        self._stack = []
        self._reading = False  # reading a value calls `keras.ops`, too
        self._found = math.inf  # place of the source after which calls are left out

    def note(self, name, kind, value, inputs=None, begin=None, layer=None):
        """Records a call.

        Args:
            name: See `Output`.
            kind: See `Output`.
            value: What the call returned.
            inputs: What it was called with.
            begin: Number of outputs before it. Defaults to `None`: no call within it.
            layer: The layer that was called, whose losses the call returns, too.
        """
        begin = len(self.outputs) if begin is None else begin
        if self._reading or begin > self._found:
            return
        self._reading = True
        own = _measure(value)
        given = _measure(inputs if own.nonfinite else ())
        inner = [output for output in self.outputs[begin:] if output.source]
        ends_here = inner and not own.nonfinite and own.size
        if ends_here and layer is not None:
            ends_here = not _measure(layer.losses).nonfinite
        self._reading = False
        if not own.size:
            return
        if ends_here:
            self._found = math.inf
            for output in inner:
                output.source = False
        source = own.nonfinite and (not given.nonfinite or (own.nan and not given.nan))
        if source and self._first_only:
            self._found = min(self._found, len(self.outputs))
        self.outputs.append(
            Output(
                name,
                kind,
                self._stack[-1] if self._stack else None,
                own.nonfinite / own.size,
                max(-own.low, own.high, 0.0),
                (given.low, given.high) if given.low <= given.high else None,
                bool(source),
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

    @contextlib.contextmanager
    def _within(self, name):
        self._stack.append(name)
        try:
            yield
        finally:
            self._stack.pop()

    def _of_layers(self, call):
        def recorded(layer, *args, **kwargs):
            begin = len(self.outputs)
            named = contextlib.nullcontext()
            if layer is not self._model:
                named = self._within(layer.name)
            with named:
                output = call(layer, *args, **kwargs)
            self.note(layer.name, "layer", output, (args, kwargs), begin, layer)
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
            begin = len(self.outputs)
            with self._within(loss.name):
                output = call(loss, *args, **kwargs)
            self.note(loss.name, "loss", output, args[1:2], begin)
            return output

        return recorded


class _Measured(NamedTuple):
    size: int = 0
    nonfinite: int = 0  # number of values
    nan: bool = False  # whether there is one
    low: float = math.inf  # of the finite values
    high: float = -math.inf


def _measure(nested):
    """What is known of all float arrays among the leaves of a nested structure.

    It takes one at a time, in its own type: activations may be large.
    """
    size, nonfinite, nan, low, high = _Measured()
    for array in _arrays(nested):
        finite = np.isfinite(array)
        size += array.size
        if not finite.all():
            nonfinite += array.size - int(np.count_nonzero(finite))
            nan = nan or bool(np.isnan(array).any())
        else:
            finite = True  # much faster
        low = min(low, float(array.min(where=finite, initial=math.inf)))
        high = max(high, float(array.max(where=finite, initial=-math.inf)))
    return _Measured(size, nonfinite, nan, low, high)


def _arrays(nested):
    """The float arrays among the leaves of a nested structure, and infinite floats."""
    for leaf in keras.tree.flatten(nested):
        if isinstance(leaf, float) and not math.isfinite(leaf):
            yield np.asarray(leaf)
        if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
            continue
        try:
            array = np.asarray(to_numpy(leaf))
        except (AttributeError, NotImplementedError, TypeError, ValueError):
            continue  # symbolic, within a loop or a compiled function
        if array.dtype.kind == "V":
            array = array.astype("float32")  # bfloat16
        if array.dtype.kind == "f" and array.size:
            yield array
