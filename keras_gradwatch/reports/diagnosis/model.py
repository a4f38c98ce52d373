"""Describes what matters for the diagnosis of a model, as plain data."""

from collections import Counter

import keras

from keras_gradwatch.keras_hooks.metrics import metric_names
from keras_gradwatch.keras_hooks.outputs import output_layers
from keras_gradwatch.records.names import unique
from keras_gradwatch.reports.diagnosis.heads import (
    activation_of,
    family_of,
    heads,
    name_of,
)
from keras_gradwatch.tensors.processes import is_alone

NORMALIZATIONS = (
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.LayerNormalization,
    keras.layers.RMSNormalization,
    keras.layers.UnitNormalization,
)
UNBOUNDED = ("linear", "relu", "leaky_relu", "elu", "gelu", "silu", "softplus")
# They pass numbers on as they are, ...
PASSING = (
    keras.layers.Dropout,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Masking,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
)
# ... these multiply them with weights, ...
WEIGHTED = (
    keras.layers.Bidirectional,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Dense,
    keras.layers.RNN,
    keras.layers.TimeDistributed,
)
# ... and these stand between two Dense layers.
BETWEEN = (
    *PASSING,
    *NORMALIZATIONS,
    keras.layers.Activation,
    keras.layers.LeakyReLU,
    keras.layers.ReLU,
)
PENALTIES = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)
REGRESSION = ("squared", "absolute", "huber", "log_cosh", "logcosh", "mse", "mae")


def describe(model, read=keras.ops.convert_to_numpy):
    """Describes a built and compiled model, a dict of plain data.

    `read` gives the value of a variable, a NumPy array. The keys are `shapes`
    (trainable variable to shape), `activations` (name to number of layers, without
    outputs), `loss` and `optimizer` (names, or None), `family` (of the loss, a key of
    `FAMILIES`, or None), `regression` (bool), `heads`, `dropout` (the largest rate),
    `kernels` (number, with frozen ones), `momentum` (of the optimizer), `penalized`
    (whether a layer has a regularizer), `penalty` (what L1 and L2 regularizers of
    weights add to the loss), `penalties` (the same of each variable), `trained`
    (whether the optimizer has made updates), `linear_stack` (whether Dense layers
    follow each other with no activation), `trainable` (number of variables),
    `narrowest` (name and units of the narrowest hidden Dense layer), `bias` (the
    smallest constant bias initializer), `dtype` (of the last layer's computation),
    `normalizes_batch` (name of a trainable batch normalization of vectors, or None),
    `recurrent` (name and activation of an unbounded LSTM or GRU, or None), `metrics`
    (names), `scales_inputs` (whether something other than a trainable Dense,
    convolutional or recurrent layer may read the inputs first) and `order` (pairs of
    each layer's name and the names of its variables).
    """
    layers = list(_layers(model))
    outputs = _outputs(model)
    hidden = [layer for layer in layers if not any(layer is out for out in outputs)]
    names = unique(v.path for v in model.trainable_variables)
    penalties = {
        name: _penalty(v, read)
        for name, v in zip(names, model.trainable_variables, strict=True)
    }
    loss = name_of(getattr(model, "loss", None))
    # Loss names come as mse, mean_squared_error and MeanSquaredError.
    regression = any(word in (loss or "").lower() for word in REGRESSION)
    return {
        "shapes": {
            name: list(v.shape)
            for name, v in zip(names, model.trainable_variables, strict=True)
        },
        "activations": dict(
            Counter(a for a in map(_activation, hidden) if a not in (None, "linear"))
        ),
        "loss": loss,
        "family": family_of(loss),
        "optimizer": name_of(_inner(getattr(model, "optimizer", None))),
        "regression": regression,
        "heads": heads(model),
        "dropout": max((_dropout(layer) for layer in layers), default=0.0),
        "kernels": sum(len(v.shape) >= 2 for v in model.weights),
        "momentum": _momentum(model),
        "penalized": any(map(_has_regularizer, layers)),
        "penalty": sum(penalties.values()),
        "penalties": {name: value for name, value in penalties.items() if value},
        "trained": _is_trained(model, read),
        "normalizes_batch": _normalizes_batch(layers),
        "recurrent": _unbounded_recurrent(layers),
        "metrics": metric_names(model),
        "trainable": len(names),
        "narrowest": _narrowest(model),
        "bias": min(map(_constant_bias, hidden), default=0.0),
        "dtype": str(getattr(layers[-1], "compute_dtype", "")) if layers else "",
        "linear_stack": _has_linear_stack(model),
        "scales_inputs": not _reads_inputs(model),
        "order": _order(model, names),
    }


def _layers(layer):
    for inner in getattr(layer, "layers", ()):
        yield inner
        yield from _layers(inner)


def _outputs(model):
    """Returns the layers whose activation depends on the task, not on the network.

    If a model does not list its outputs, those of its inner networks.
    """
    found = output_layers(model)
    if not found:
        inner = getattr(model, "layers", ())
        found = [out for m in inner if hasattr(m, "layers") for out in _outputs(m)]
    return found


def _activation(layer):
    activation = activation_of(layer)
    return None if activation == "linear" else activation


def _order(model, names):
    """Returns pairs of a layer's name and the names of its trainable variables."""
    own = zip(model.trainable_variables, names, strict=True)
    by_id = {id(variable): name for variable, name in own}
    order = []
    for layer in getattr(model, "layers", []):
        if not isinstance(layer, keras.layers.InputLayer):
            known = [by_id.get(id(v)) for v in layer.trainable_variables]
            order.append([layer.name, [name for name in known if name]])
    return order


def _reads_inputs(model):
    """Returns whether a trainable layer with weights is known to read raw inputs."""
    layers = [
        layer
        for layer in getattr(model, "layers", ())
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    raw = {id(tensor) for tensor in inputs}
    for layer in layers:
        # A subclassed model has no graph: its first layer is taken for the first.
        if raw and not any(id(t) in raw for t in _tensors(layer, "input")):
            continue
        if not isinstance(layer, PASSING):
            return isinstance(layer, WEIGHTED) and layer.trainable
        raw |= {id(t) for t in _tensors(layer, "output")}
    return False


def _inner(optimizer):
    """Returns the optimizer in a `LossScaleOptimizer`; of any other, itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _momentum(model):
    value = getattr(_inner(getattr(model, "optimizer", None)), "momentum", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _has_regularizer(layer):
    names = ("kernel", "recurrent", "bias", "activity", "embeddings", "beta", "gamma")
    return any(getattr(layer, f"{name}_regularizer", None) for name in names)


def _is_trained(model, read):
    # Under gradient accumulation, `optimizer.iterations` is no variable.
    variables = getattr(getattr(model, "optimizer", None), "variables", ())
    counts = [v for v in variables if v.name == "iteration"]
    return any(int(read(count)) > 0 for count in counts)


def _penalty(variable, read):
    regularizer = getattr(variable, "regularizer", None)
    # Of several processes, each may have a part of the weights only.
    if not isinstance(regularizer, PENALTIES) or not is_alone():
        return 0.0
    l1, l2 = (float(getattr(regularizer, name, 0.0)) for name in ("l1", "l2"))
    weights = read(variable).astype("float64")
    return float(l1 * abs(weights).sum() + l2 * (weights**2).sum())


def _dropout(layer):
    rate = getattr(layer, "rate", 0.0)
    return rate if isinstance(layer, keras.layers.Dropout) else 0.0


def _normalizes_batch(layers):
    for layer in layers:
        vectors = isinstance(layer, keras.layers.BatchNormalization)
        vectors = vectors and getattr(layer.input_spec, "ndim", None) == 2
        if vectors and layer.trainable:
            return layer.name
    return None


def _unbounded_recurrent(layers):
    for layer in layers:
        inner = getattr(layer, "forward_layer", layer)  # of a Bidirectional
        if isinstance(inner, keras.layers.LSTM | keras.layers.GRU):
            activation = activation_of(inner)
            if activation in UNBOUNDED:
                return [layer.name, activation]
    return None


def _narrowest(model):
    """Returns `[name, units]` of the narrowest Dense before another, or None."""
    dense = [before for _, before in _dense_pairs(model, BETWEEN)]
    widths = [[layer.name, layer.units] for layer in dense]
    return min(widths, key=lambda width: width[1], default=None)


def _constant_bias(layer):
    value = getattr(getattr(layer, "bias_initializer", None), "value", 0.0)
    return float(value) if isinstance(value, int | float) else 0.0


def _has_linear_stack(model):
    """Returns whether a Dense layer without an activation feeds another one."""
    pairs = _dense_pairs(model, keras.layers.Dropout)
    return any(activation_of(before) == "linear" for _, before in pairs)


def _dense_pairs(model, between):
    """Yields a Dense layer and the one that feeds it, at most via `between`."""
    layers = getattr(model, "layers", [])
    made_by = {
        id(tensor): layer for layer in layers for tensor in _tensors(layer, "output")
    }
    for layer in layers:
        if not isinstance(layer, keras.layers.Dense):
            continue
        before = _before(layer, made_by)
        while isinstance(before, between):
            before = _before(before, made_by)
        if isinstance(before, keras.layers.Dense):
            yield layer, before


def _before(layer, made_by):
    """Returns the layer that feeds `layer`; None unless there is exactly one."""
    tensors = _tensors(layer, "input")
    return made_by.get(id(tensors[0])) if len(tensors) == 1 else None


def _tensors(layer, name):
    """Returns the symbolic inputs or outputs of a layer that was called just once."""
    try:
        found = keras.tree.flatten(getattr(layer, name, None))
        return [tensor for tensor in found if tensor is not None]
    except (AttributeError, RuntimeError, ValueError):
        return []  # called several times, or never
