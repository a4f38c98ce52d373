"""Watching a model: as a model subclass, or in place for any Keras trainer."""

import functools

import keras

from keras_gradwatch import backends
from keras_gradwatch.controller.dispatcher import make_dispatcher
from keras_gradwatch.controller.monitor import GradientMonitor
from keras_gradwatch.detectors.base import Detector, flatten
from keras_gradwatch.keras_hooks.functional_class import class_to_make
from keras_gradwatch.keras_hooks.interception import active, is_stock
from keras_gradwatch.policies import Policy, named
from keras_gradwatch.train_step.logs import metrics_result
from keras_gradwatch.train_step.run import run_step

# What `watch` puts on the instance, over what its class has.
SAVING = ("save", "save_weights")
METHODS = ("train_step", "make_train_function", "get_metrics_result", *SAVING)


def watch(
    model: keras.Model,
    policy: Policy | str | float | None = None,
    detector: Detector | None = None,
) -> keras.Model:
    """Captures the gradients of every training step of a model, in place.

    The model's own `train_step`, stock or custom, runs unchanged. Without further
    arguments it only observes: the model trains as without the package. The
    model may be compiled before or after the call. Its weights and its saved files do
    not change.

    Args:
        model: Any Keras 3 trainer: Functional, Sequential, subclassed.
        policy: `policies.Policy` that changes gradients from now on, also in
            `train_on_batch` and in a `fit` without callbacks; its name or a number, as
            in `callbacks.GradientClipping`. With a policy, steps with non-finite
            gradients are skipped. If `None`, gradients are not changed. Defaults to
            `None`.
        detector: `detectors.Detector` whose events are recorded from now on. After a
            drain, the events are in `model.gradwatch.recorder.events`. If `None`, only
            non-finite values are events. Defaults to `None`.

    Returns:
        The model. `model.gradwatch` is its `GradientMonitor`.

    Raises:
        TypeError: If `model` is not a Keras 3 trainer, or an argument has a wrong type.
        ValueError: If the model already has its own attribute `gradwatch`.
        RuntimeError: If the Keras backend is not supported.
        ValueError: If the model was created under a strategy that is not supported.

    Example:

    ```python
    model = keras_gradwatch.watch(keras.Sequential([keras.layers.Dense(1)]))
    model.compile("sgd", "mse")
    model.fit(x, y)
    rows = model.gradwatch.drain()
    ```
    """
    _check(model)
    policy = named.get(policy)
    detectors = flatten(detector)
    if not is_watched(model):
        _attach(model)
    if policy is not None or detectors:
        model.gradwatch.stand(policy, detectors)
    return model


def unwatch(model: keras.Model) -> keras.Model:
    """Undoes `watch`: the model behaves as if it had never been watched.

    If the package reduced a `LearningRateSchedule`, the original one is restored. A
    constant learning rate that was reduced stays reduced.

    Args:
        model: A Keras trainer, watched or not.

    Returns:
        The model.
    """
    if not is_watched(model):
        return model
    model.gradwatch.detach()
    for name in (*METHODS, "gradwatch"):
        if name in vars(model):
            object.__delattr__(model, name)
    model.train_function = None
    return model


def is_watched(model: object) -> bool:
    """Whether `watch` was called on this model (and `unwatch` was not)."""
    return isinstance(vars(model).get("gradwatch"), GradientMonitor)


def _check(model):
    # `Trainer` is not public; whoever is Keras's and has its methods is one.
    ancestry = [c.__module__.split(".")[0] for c in type(model).__mro__]
    methods = ("fit", "train_step", "make_train_function", "compile", "metrics")
    if "tf_keras" in ancestry:
        raise TypeError(
            "keras_gradwatch only watches Keras 3 models, but this one belongs to "
            "tf_keras (Keras 2). Build it with `import keras` (3.x), and unset "
            f"TF_USE_LEGACY_KERAS if it is set. Received: model={model!r}"
        )
    if "keras" not in ancestry or not all(hasattr(model, m) for m in methods):
        raise TypeError(
            "keras_gradwatch only watches Keras 3 models: an instance of keras.Model, "
            "Functional, Sequential, or another Keras trainer. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    if hasattr(model, "gradwatch") and not is_watched(model):
        raise ValueError(
            "keras_gradwatch stores its `GradientMonitor` in `model.gradwatch`, but "
            "this model already has an attribute of that name: rename it. "
            f"Received: model.gradwatch={model.gradwatch!r}"
        )


def _attach(model):
    backend = backends.load()
    # Now: `fit` itself fails before it comes to the callbacks.
    backend.check_strategy(model)
    own_step, own_make = _own_step(model), model.make_train_function
    monitor = GradientMonitor(backend, model)
    monitor.steps_are_stock = is_stock(own_step)

    @functools.wraps(own_step)
    def train_step(*args):
        return run_step(model, monitor, own_step, *args)

    @functools.wraps(own_make)
    def make_train_function(*args, **kwargs):
        make = functools.partial(own_make, *args, **kwargs)
        make_dispatcher(model, monitor, make)

    own_result = model.get_metrics_result

    @functools.wraps(own_result)
    def get_metrics_result():
        results = own_result()
        # A step's own logs are corrected where it ends.
        in_step = active() is not None
        if in_step or not (monitor.live and monitor.steps_are_stock):
            return results
        return metrics_result(model, results)

    # Past Keras's tracking: none of these is a part of the model.
    object.__setattr__(model, "gradwatch", monitor)
    object.__setattr__(model, "train_step", train_step)
    object.__setattr__(model, "make_train_function", make_train_function)
    object.__setattr__(model, "get_metrics_result", get_metrics_result)
    for name in SAVING:
        if hasattr(model, name):  # a bare trainer has none
            object.__setattr__(model, name, _saving(getattr(model, name), monitor))
    model.train_function = None


def _own_step(model):
    """Returns the step to be watched; that of `GradWatchModel` is only a way to it."""
    step = model.train_step
    if getattr(step, "__func__", None) is GradWatchModel.train_step:
        return super(GradWatchModel, model).train_step
    return step


def _saving(own, monitor):
    """Wraps a method that saves the model, so that the run's state is saved, too."""

    @functools.wraps(own)
    def save(*args, **kwargs):
        monitor.keep_with_model()
        return own(*args, **kwargs)

    return save


@keras.saving.register_keras_serializable("keras_gradwatch")
class GradWatchModel(keras.Model):
    """A `keras.Model` whose `train_step` captures gradients and calls the stock one.

    Use it like `keras.Model`, in functional style (`GradWatchModel(inputs, outputs)`)
    or as a base class. A subclass may override `train_step` as in any Keras model, and
    is still watched.

    Attributes:
        gradwatch: The `GradientMonitor`.

    Example:

    ```python
    inputs = keras.Input((4,))
    outputs = keras.layers.Dense(1)(inputs)
    model = keras_gradwatch.GradWatchModel(inputs, outputs)
    ```
    """

    def __new__(cls, *args, **kwargs):
        cls = class_to_make(cls, args, kwargs)
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        watch(self)

    def train_step(self, *args):
        """One training step with its gradients captured; see `keras.Model`."""
        step = super().train_step
        if not is_watched(self):
            return step(*args)
        return run_step(self, self.gradwatch, step, *args)
