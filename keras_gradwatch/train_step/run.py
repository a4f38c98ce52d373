"""Running the model's own training step with its gradients captured."""

from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.tensors.branch import uncompiled
from keras_gradwatch.train_step.watched import WatchedStep


@uncompiled(recursive=False)
def run_step(model, monitor, step, *arguments):
    """Runs one training step.

    With `torch.compile`, only the model's own step is compiled. The code of this
    package, the loss and the update run uncompiled between its parts, as `backward`
    does.

    Args:
        model: The watched model.
        monitor: Its `GradientMonitor`.
        step: The model's own bound `train_step`.
        arguments: The batch; on JAX the state, too, as Keras hands it to a step.

    Returns:
        The step's own logs; on JAX the new state, too.
    """
    if active() is not None:  # a step that calls another watched step
        return step(*arguments)
    watched, own = _begin(model, monitor, step, arguments)
    if watched is None:
        return step(*arguments)
    return _finish(watched, watched.run(*own), arguments[-1])


@uncompiled()
def _begin(model, monitor, step, arguments):
    monitor.backend.prepare(model, step, *arguments)
    runner = monitor.backend.make_runner(model, *arguments)
    if runner is None:
        return None, ()
    return WatchedStep(model, monitor, runner, step), runner.arguments(*arguments)


@uncompiled()
def _finish(watched, returned, data):
    runner = watched.runner
    return runner.result(watched.finish(runner.logs(returned), data))
