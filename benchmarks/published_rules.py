"""Rules of others that find bad steps, in NumPy, as published.

Each takes the sequences of B runs of T steps and returns its alarms, bool [T, B].
"""

import numpy as np


def autotrainer(norm, loss, ratio):
    """AutoTrainer (Zhang et al., ICSE 2021): explosion.

    The norm of the first kernel's gradient is more than 70 times the last one's, or
    something is not finite. It asks once an epoch; here it is asked at every step.
    """
    return ~(np.isfinite(norm) & np.isfinite(loss)) | (ratio > 70)


def olmo(norm, loss, ratio=None, window=128, sigmas=6.0):
    """OLMo-core's skip-step optimizer.

    Skipped is a step whose loss or norm is not within mean + 6σ of the 128 before it;
    judged once 63 are there. All values enter the window.
    """
    alarms = np.zeros(norm.shape, bool)
    for step in range(window // 2 - 1, len(norm)):
        for values in (norm, loss):
            past = values[max(0, step - window) : step]
            mean, spread = past.mean(axis=0), past.std(axis=0, ddof=1)
            alarms[step] |= ~(values[step] - mean <= sigmas * spread)
    return alarms


def zclip(norm, loss=None, ratio=None, z=2.5, alpha=0.97, warmup=25):
    """ZClip (Kumar et al. 2025): z > 2.5 against running moments of the clipped norm.

    An alarm is a step that it clips. The first 25 norms begin the moments.
    """
    alarms = np.zeros(norm.shape, bool)
    mean, variance = norm[:warmup].mean(axis=0), norm[:warmup].var(axis=0)
    for step in range(warmup, len(norm)):
        value, spread = norm[step], np.sqrt(variance)
        score = (value - mean) / (spread + 1e-6)
        alarms[step] = score > z
        clipped = mean + z * spread / np.maximum(score / z, 1.0)
        taken = np.where(alarms[step], clipped, value)
        mean = alpha * mean + (1 - alpha) * taken
        variance = alpha * variance + (1 - alpha) * (taken - mean) ** 2
    return alarms


RULES = {"AutoTrainer": autotrainer, "OLMo-core": olmo, "ZClip": zclip}
