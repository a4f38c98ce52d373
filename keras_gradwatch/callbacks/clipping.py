"""Clipping the gradients before the optimizer receives them."""

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import Request
from keras_gradwatch.policies import (
    ClipByGlobalNorm,
    ClipByNorm,
    ClipByValue,
    named,
)
from keras_gradwatch.policies.base import Policy


class GradientClipping(WatchingCallback):
    """Changes the gradients of every step by a policy, while `fit` runs.

    The policy receives gradients that are summed over replicas, unscaled, and averaged
    over an accumulation window. Steps with non-finite gradients are skipped, never
    clipped. Clipping that is set on the optimizer itself acts after the policy,
    exactly as in stock Keras.

    Args:
        policy: A `policies.Policy`, its name, such as `"auto_clip"`, or a number, which
            limits the norm of all gradients together. Defaults to `None`.
        clipnorm: Limit for the norm of each variable's gradient, > 0. Defaults to
            `None`.
        clipvalue: Limit for each component, > 0. Defaults to `None`.
        global_clipnorm: Limit for the norm of all gradients together, > 0. Defaults to
            `None`.

    Raises:
        ValueError: If not exactly one argument is given, or a limit is not > 0.
        TypeError: If `policy` is none of these.

    Example:

    ```python
    clipping = keras_gradwatch.callbacks.GradientClipping(1.0)  # the global norm
    model.fit(x, y, callbacks=[clipping])
    ```
    """

    def __init__(
        self,
        policy: Policy | str | float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
    ) -> None:
        super().__init__()
        arguments = {
            "policy": policy,
            "clipnorm": clipnorm,
            "clipvalue": clipvalue,
            "global_clipnorm": global_clipnorm,
        }
        given = {k: v for k, v in arguments.items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                "GradientClipping takes exactly one of `policy`, `clipnorm`, "
                f"`clipvalue` and `global_clipnorm`. Received: {given or 'none'}"
            )
        if clipnorm is not None:
            policy = ClipByNorm(clipnorm)
        elif clipvalue is not None:
            policy = ClipByValue(clipvalue)
        elif global_clipnorm is not None:
            policy = ClipByGlobalNorm(global_clipnorm)
        self.policy = named.get(policy)

    def request(self):
        return Request("GradientClipping", policy=self.policy)
