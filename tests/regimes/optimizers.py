"""The optimizers of the matrix: every one that Keras ships, and its options."""

from keras.optimizers import (
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Ftrl,
    Lamb,
    Lion,
    MultiOptimizer,
    Muon,
    Nadam,
    OptimizerMap,
    RMSprop,
    ScheduleFreeAdamW,
    schedules,
)


def multi(loss_scale_factor=None, **kwargs):
    """Biases by SGD, all else by Adam."""
    by_path = {".*bias": SGD(1e-2, **kwargs)}
    members = OptimizerMap(Adam(1e-3, **kwargs), by_path)
    return MultiOptimizer(members, loss_scale_factor=loss_scale_factor)


def scheduled(**kwargs):
    return Adam(schedules.ExponentialDecay(1e-3, 2, 0.9), **kwargs)


# Name: how it is made, from the keyword arguments that a regime asks for. Small rates:
# no update may come near the trust bound.
OPTIMIZERS = {
    "sgd": lambda **kw: SGD(1e-2, momentum=0.9, nesterov=True, **kw),
    "rmsprop": lambda **kw: RMSprop(1e-3, centered=True, **kw),
    "adam": lambda **kw: Adam(1e-3, amsgrad=True, **kw),
    "adamw": lambda **kw: AdamW(1e-3, weight_decay=0.1, **kw),
    "adadelta": lambda **kw: Adadelta(1e-1, **kw),
    "adagrad": lambda **kw: Adagrad(1e-3, **kw),
    "adamax": lambda **kw: Adamax(1e-3, **kw),
    "adafactor": lambda **kw: Adafactor(1e-2, **kw),
    "ftrl": lambda **kw: Ftrl(1e-2, **kw),
    "lion": lambda **kw: Lion(1e-4, **kw),
    "nadam": lambda **kw: Nadam(1e-3, **kw),
    "lamb": lambda **kw: Lamb(1e-3, **kw),
    "muon": lambda **kw: Muon(1e-3, **kw),
    "schedule_free": lambda **kw: ScheduleFreeAdamW(1e-3, **kw),
    "multi": multi,
    "ema": lambda **kw: Adam(1e-3, use_ema=True, ema_overwrite_frequency=2, **kw),
    "decay": lambda **kw: SGD(1e-2, weight_decay=0.01, **kw),
    "own_clip": lambda **kw: Adam(1e-3, global_clipnorm=0.5, **kw),
    "schedule": scheduled,
}
# It takes the first weights over when it is built. Where Keras builds it, while the
# first step is traced, it gets none of them, and `fit` begins at weights of zero.
BUILT_AHEAD = ("schedule_free",)
