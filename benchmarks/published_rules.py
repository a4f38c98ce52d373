"""Rules of others, in NumPy, as published.

Those that find bad steps take the sequences of B runs of T steps, and return alarms,
bool [T, B]. Those that diagnose a run take what was seen after each of its epochs.
"""

from dataclasses import dataclass

import numpy as np


def autotrainer(norm, loss, ratio):
    """AutoTrainer (Zhang et al., ICSE 2021): explosion.

    The norm of the first kernel's gradient is more than 70 times the last one's, or
    something is not finite. It checks one batch in every third epoch; here it is
    applied at every step.
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


# -- Rules that diagnose a run: a list of `Look`s, one after each epoch ----------------


@dataclass
class Look:
    """What a rule sees of a model after an epoch, on its first batch.

    Attributes:
        loss: Of the epoch.
        accuracy: Of the epoch; None for a regression.
        gradients: Of each trainable variable; those of tensors may be empty where only
            losses were looked at.
        weights: Each trainable variable.
        outputs: Pairs of the activation and the output of each layer.
    """

    loss: float
    accuracy: float | None
    gradients: list
    weights: list
    outputs: list


def autotrainer_diagnosis(looks, loss=None, targets=None):
    """AutoTrainer: explosion, vanishing, dying ReLU, oscillation, slow convergence.

    Constants of its `demo.py`: β₁ = 1e-3, β₂ = 1e-4, β₃ = 70, γ = 0.7, Θ = 0.6,
    δ = 0.01, ζ = 0.03. It judges classifiers, by their accuracy; a run whose
    accuracy rises above Θ has no problem. For a regression only values that are not
    finite count.
    """
    finite = all(
        np.isfinite(look.loss) and all(np.isfinite(g).all() for g in look.gradients)
        for look in looks
    )
    if not finite or any(look.loss >= 1e5 for look in looks):
        return {"exploding"}
    accuracy = [look.accuracy for look in looks if look.accuracy is not None]
    if not accuracy or max(accuracy) >= 0.6:
        return set()
    found = set()
    for look in looks:
        flat = np.concatenate([g.ravel() for g in look.gradients] or [np.ones(1)])
        norms = [np.linalg.norm(g) for g in look.gradients if g.ndim > 1]
        if (flat == 0).mean() >= 0.7:
            found.add("dying relu")
        if norms and norms[-1] > 0 and norms[0] / norms[-1] > 70:
            found.add("exploding")
        if norms and norms[0] < min(1e-3 * norms[-1], 1e-4):
            found.add("vanishing")
    steps = np.diff(accuracy)
    if len(steps) and (steps < -0.03).mean() > 0.3:
        found.add("oscillating")
    return found or {"slow convergence"}


def deepdiagnosis(looks, loss, targets):
    """DeepDiagnosis (Wardat et al., ICSE 2022), the conditions of its callback.

    Its checks, in its order: last layer out of range, numerical error, dead nodes (70%
    of a ReLU's outputs at most 0, at the end), saturation (half of the inputs of a
    sigmoid or tanh beyond ±5), unchanged tensors, loss or accuracy that do not change
    (5 and 20 epochs), vanishing gradients (mean size below 1e-7).
    """
    found = set()
    activation, last = looks[0].outputs[-1]
    ranges = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, np.inf)}
    low, high = ranges.get(activation, (-np.inf, np.inf))
    logits = activation in ("linear", "relu") and "categorical" in loss
    wide = activation == "linear" and np.ptp(last) > 10 * np.ptp(targets)
    outside = targets.min() < low or targets.max() > high
    if activation != "softmax" and (logits or wide or outside):
        found.add("out of range")
    for look in looks:
        tensors = [*(o for _, o in look.outputs), *look.gradients, *look.weights]
        means = [t.mean() for t in tensors if t.size]
        if not np.isfinite([*means, look.loss]).all():
            found.add("numerical error")
        if any(g.size and not g.any() for g in look.gradients if g.ndim > 1):
            found.add("numerical error")
        kernels = [np.abs(g).mean() for g in look.gradients if g.ndim > 1]
        if any(size < 1e-7 for size in kernels):
            found.add("vanishing")
        if look.accuracy == 0:
            found.add("accuracy")
    for name, output in looks[-1].outputs[:-1]:
        if name in ("relu", "exponential") and (output <= 0).mean() >= 0.7:
            found.add("dead node")
        far = {
            "sigmoid": np.abs(output - 0.5) > 0.4933,
            "tanh": np.abs(output) > 0.9999,
        }
        if name in far and far[name].mean() > 0.5:
            found.add("saturated")
    for window, values, word in (
        (5, [look.loss for look in looks], "loss"),
        (20, [look.accuracy for look in looks], "accuracy"),
    ):
        newest = values[-window:]
        if len(newest) == window and len(set(newest)) == 1 and None not in newest:
            found.add(word)
    full = [look for look in looks if look.outputs]
    if len(looks) >= 5 and len(full) > 1:
        kept = zip(full[-2].outputs[:-1], full[-1].outputs[:-1], strict=True)
        if any(a.size and np.array_equal(a, b) for (_, a), (_, b) in kept):
            found.add("unchanged")
    return found
