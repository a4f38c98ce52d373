"""A spike of the loss."""

import keras

from keras_gradwatch.detectors.baseline import LogBaseline, spike_words


@keras.saving.register_keras_serializable("keras_gradwatch")
class LossSpike(LogBaseline):
    """Trips when a step's own loss leaves its running range on the log scale.

    Formula: with ℓ = log|loss| and μ, σ its running mean and standard deviation, it
    trips if `ℓ − μ > max(z·σ, log factor)` after `warmup` steps; from the fourth step
    on also if |loss| is more than 100 times the largest of the newest 100 to 200
    (during warm-up, from the ninth step on, 100 times the upper quartile). A loss of 0
    is ignored.

    The update is skipped if |loss| is also more than `factor` times the largest of the
    first `warmup` steps. After three separate spikes of at most 10,000 times that
    loss, values up to twice the largest of them are considered normal.

    The loss is that of the step, not the running mean over the epoch that Keras logs.
    If the loss of a custom `train_step` is unknown, the detector never trips.

    Args:
        z: Standard deviations above the mean, > 0. Defaults to `6.0`.
        factor: A spike is at least this many times the baseline, > 1. Defaults to
            `10.0`.
        decay: Decay of the running moments per step, >= 0 and < 1. Defaults to `0.97`,
            about 33 steps.
        warmup: Steps before a step is compared with the mean, >= 1. Defaults to `20`.
        patience: Spikes in a row after which the new level becomes the baseline, >= 1.
            Defaults to `5`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:

    ```python
    callbacks.TerminateOnExplosion(detector=detectors.LossSpike(factor=100.0))
    ```

    Reference: the loss criterion of OLMo-core's skip-step optimizer (a step beyond
    mean + 6σ is skipped), on the log scale and with bounded influence of each value.
    """

    kind = "loss spike"
    needs_loss = True
    judged = "loss"
    # A squared error grows with the square of what the norm grows with.
    reach_of_data = 1e4

    def describe(self, variable, value, baseline):
        return spike_words("the loss", value, baseline)
