"""A spike of the global norm against its running baseline."""

import keras

from keras_gradwatch.detectors.baseline import LogBaseline, spike_words


@keras.saving.register_keras_serializable("keras_gradwatch")
class ZScore(LogBaseline):
    """Trips when the global gradient norm leaves its running range on the log scale.

    Formula: with ℓ = log‖g‖ and μ, σ its running mean and standard deviation, it trips
    if `ℓ − μ > max(z·σ, log factor)` after `warmup` steps. Gradient norms are
    roughly log-normal in practice, so a z-score of the logarithm fits smooth and noisy
    runs alike. From the fourth step on it also trips if ‖g‖ is more than 100 times the
    largest of the newest 100 to 200 steps (during warm-up, from the ninth step on, 100
    times the upper quartile). A norm of 0 is ignored.

    The update is skipped if ‖g‖ is also more than `factor` times the largest norm of
    the first `warmup` steps. After three separate spikes of at most 1,000 times that
    norm, values up to twice the largest of them are considered normal.

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
    callbacks.SkipOnExplosion(detector=detectors.ZScore(z=4.0))
    ```

    Reference: after ZClip (Kumar et al. 2025, arXiv 2504.02507), which uses the z-score
    of the norm itself. On the log scale and with bounded influence of each value, one
    NaN or a spike during warm-up does not distort the baseline.
    """

    kind = "norm spike"
    judged = "global_norm"

    def describe(self, variable, value, baseline):
        return spike_words("the global gradient norm", value, baseline)
