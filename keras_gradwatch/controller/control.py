"""The values that the host sets for the step: those of a plan, and current ones."""

import numpy as np

from keras_gradwatch.train_step.state import CONTROL

NEVER = 2.0**30


def control_values(plan, controller, live, standing):
    """Returns the value of the variable `control`, none of it compiled into the step.

    It is float32, in the order of `CONTROL`, then the policy's settings. `standing` is
    True if the policy also applies outside of `fit`.
    """
    policy = plan.policy is not None
    bounds = controller.bounds
    halt_after, on_nonfinite, on_limits = controller.halting()
    region = controller.region
    controller.radius_in_force = region["radius"]
    values = {
        "responding": live,
        "guarding": standing or (live and plan.protects),
        "clipping": policy and (live or standing),
        "halted": controller.halted,
        "halt_after": halt_after,
        "halt_on_nonfinite": on_nonfinite,
        "halt_on_limits": on_limits,
        "sample_every": plan.sample_freq or NEVER,
        "patience": bounds.patience,
        "radius": region["radius"],
        "element": region["element"],
        "decrease": region["decrease"],
        "histogram_every": plan.histogram_freq,
        "batch_limit": plan.save_batch if live else 0,
    }
    assert tuple(values) == CONTROL
    settings = plan.policy.settings.values() if policy else ()
    return np.float32([*values.values(), *settings])
