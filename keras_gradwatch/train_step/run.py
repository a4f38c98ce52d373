"""Running the model's own training step with its gradients captured."""

from keras_gradwatch.keras_hooks.interception import active
from keras_gradwatch.tensors.branch import uncompiled
from keras_gradwatch.train_step.watched import WatchedStep


@uncompiled(recursive=False)
def run_step(model, monitor, step, *arguments):
    """Runs one training step, and returns the logs of `step`, on JAX with the state.

    With `torch.compile`, only the model's own step is compiled; this package, the loss
    and the update run uncompiled between its parts, as `backward` does.
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
    runner = monitor.backend.runner(model, *arguments)
    if runner is None:
        return None, ()
    return WatchedStep(model, monitor, runner, step), runner.arguments(*arguments)


@uncompiled()
def _finish(watched, returned, data):
    runner = watched.runner
    return runner.result(watched.finish(runner.logs(returned), data))
