"""The gradients that the optimizer receives, and their replacements.

The gradient is always defined as summed over the replicas, unscaled, averaged over the
accumulation window, with the duplicates of sparse rows summed.
"""

from keras import ops

from keras_gradwatch.backends.runner import values_of
from keras_gradwatch.keras_hooks import loss_scale
from keras_gradwatch.keras_hooks.accumulation import Window
from keras_gradwatch.tensors import sparse
from keras_gradwatch.tensors.branch import cond
from keras_gradwatch.train_step.application import Application, constant


def watched_places(gradients, variables):
    """Returns the indices of the variables whose gradients are watched."""
    places = [
        i
        for i, (g, v) in enumerate(zip(gradients, variables, strict=True))
        if g is not None and not getattr(v, "overwrite_with_gradient", False)
    ]
    for i in places:
        if hasattr(gradients[i], "set_shape"):
            # TensorFlow does not always know that it has the variable's shape: for
            # one, in a Dense layer after MultiHeadAttention.
            gradients[i].set_shape(variables[i].shape)
    return places


def collect(runner, index, optimizer, apply, gradients, variables, loss, scale, newly):
    """Returns the `Application` of a built optimizer."""
    places = watched_places(gradients, variables)
    local = [gradients[i] for i in places]
    trained = [variables[i] for i in places]
    window = Window(optimizer, trained)
    loss = runner.reachable(loss, local[0])
    if scale is not None:
        scale = runner.reachable(scale, local[0])
        scale = loss_scale.loss_scale(optimizer) if scale is None else scale
    total = constant(float("nan")) if loss is None else ops.cast(loss, "float32")
    extra = [total] if newly is None else [total, newly]
    sums = runner.sum([*local, *extra])
    sums, extra = sums[: len(local)], sums[len(local) :]
    summed = [sparse.unique_rows(g) for g in sums]
    summed = window.average([loss_scale.unscale(g, scale) for g in summed])
    shown = [
        sparse.rows(g, own, v.shape)
        for g, own, v in zip(summed, local, trained, strict=True)
    ]
    return Application(
        index,
        optimizer,
        apply,
        gradients,
        variables,
        places,
        trained,
        local,
        sums,
        summed,
        shown,
        window,
        None if loss is None else extra[0],
        scale,
        None if newly is None else extra[1],
    )


def changed(runner, application, change, transform, norm):
    """Returns the application with a policy's gradients where `change`, and their norm.

    `transform()` returns the P changed gradients and their global norm.
    """
    local, sums, window = application.local, application.sums, application.window
    factor = loss_scale.loss_scale(application.optimizer)
    count = runner.count

    def new():
        gradients, norm = transform()

        def ready(replicas):
            # `apply` unscales again, and sums over the replicas again.
            pairs = zip(gradients, application.summed, local, strict=True)
            return window.hand_over(
                [
                    sparse.like(new, old, own.dtype, factor, replicas)
                    for new, old, own in pairs
                ]
            )

        return [*ready(count), *(ready(1) if count > 1 else []), norm]

    def same():
        return [*window.dense(local), *(sums if count > 1 else []), norm]

    *handed, norm = cond(change, new, same)
    parts = window.accumulators
    empty = [ops.zeros_like(part) for part in values_of(parts)]
    runner.restore(change, parts, empty)
    handed, totals = handed[: len(local)], handed[len(local) :]
    return application._replace(local=handed, sums=totals or handed), norm


def apply_unless(runner, application, decision, protects):
    """Has the optimizer apply its gradients unless the gate skips the update."""
    local, sums = application.local, application.sums
    if not protects:
        with runner.known_sums(local, sums):
            application.apply(application.gradients, application.variables)
        return
    if loss_scale.dynamic(application.optimizer) and runner.count > 1:
        local = loss_scale.propagate_overflow(local, decision.overflow)
    # Pass all gradients as arguments, including those that are not watched (new values
    # of `overwrite_with_gradient` variables), because each replica has its own.
    handed = list(application.gradients)
    for place, gradient in zip(application.places, local, strict=True):
        handed[place] = gradient
    variables = application.variables
    with runner.known_sums(local, sums):
        runner.run_if(
            ~decision.skip,
            lambda gradients: application.apply(gradients, variables),
            handed,
            written(application),
        )


def written(application):
    """Returns the variables that an update may assign to, each once."""
    variables = [*application.variables, *application.optimizer.variables]
    return list({id(v): v for v in variables}.values())
