"""Every policy in real `fit`s, against a training loop in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_gradwatch.callbacks import GradientClipping, GradientHistory
from keras_gradwatch.policies import (
    AdaGC,
    AdaptiveGradientClip,
    AutoClip,
    Centralize,
    Chain,
    ClipByGlobalNorm,
    NormalizeCentered,
    ZClip,
)
from tests import helper, steps
from tests.policies import references
from tests.regimes import models

RATE, BATCH, STEPS = 0.05, 4, 16
# The place of its table among the weights. On TensorFlow its gradient is one of rows,
# elsewhere that of any other matrix.
EMBEDDING = [0] if helper.BACKEND == "tensorflow" else []

PAIRS = [
    (AdaptiveGradientClip(), lambda: references.AdaptiveGradientClip()),
    (AutoClip(40.0), lambda: references.AutoClip(40.0)),
    (ZClip(0.5, 0.9, 4), lambda: references.ZClip(0.5, 0.9, 4)),
    (AdaGC(1.01, 0.9, 4), lambda: references.AdaGC(1.01, 0.9, 4)),
    (Centralize(), lambda: references.Centralize(EMBEDDING)),
    (NormalizeCentered(), lambda: references.NormalizeCentered(EMBEDDING)),
    (
        Chain([ClipByGlobalNorm(1.0), AdaptiveGradientClip(0.2), AutoClip(40.0)]),
        lambda: references.Chain(
            references.GlobalNorm(1.0),
            references.AdaptiveGradientClip(0.2),
            references.AutoClip(40.0),
        ),
    ),
]
KEPT = [PAIRS[0], PAIRS[4], PAIRS[6]]
each = pytest.mark.parametrize(
    ("policy", "reference"),
    helper.few(KEPT, PAIRS),
    ids=[type(p).__name__ for p, _ in PAIRS],
)


def build(steps=None, seed=1, **kwargs):
    """Digits by an embedding of their pixels, whose ids repeat, and the pixels."""
    keras.utils.set_random_seed(seed)
    optimizer = keras.optimizers.SGD(RATE, gradient_accumulation_steps=steps)
    return helper.compiled(models.embedding(), optimizer, **kwargs)


def loop(model, reference, batches):
    """Trains in NumPy; only the gradients are the backend's.

    Args:
        model: A compiled model.
        reference: Called with gradients and weights.
        batches: List of lists of `(x, y)`; the gradients of one list are averaged.
    """
    variables = model.trainable_variables
    for window in batches:
        sums = [np.zeros(v.shape) for v in variables]
        for x, y in window:

            def loss(x=x, y=y):
                y_pred = model(x, training=True)
                return model.compute_loss(y=ops.convert_to_tensor(y), y_pred=y_pred)

            for total, g in zip(sums, steps.gradients(loss, variables), strict=True):
                total += ops.convert_to_numpy(g) / len(window)
        weights = [w.astype("float64") for w in model.get_weights()]
        changed = reference(sums, weights)
        for v, w, g in zip(variables, weights, changed, strict=True):
            v.assign((w - RATE * g).astype("float32"))


def batches_of(x, y, window=1, left_out=()):
    starts = [s for s in range(0, len(x), BATCH) if s // BATCH not in left_out]
    batches = [(x[s : s + BATCH], y[s : s + BATCH]) for s in starts]
    return [batches[i : i + window] for i in range(0, len(batches), window)]


@pytest.fixture
def data(digits):
    x, y = (a[: BATCH * STEPS].copy() for a in digits)
    x[7 * BATCH : 9 * BATCH, 1::4] *= 20  # two spikes, not in the ids
    return x, y


def assert_trained_alike(model, expected, start):
    """To a thousandth of the way that was trained."""
    for a, b, s in zip(model.get_weights(), expected.get_weights(), start, strict=True):
        way = np.linalg.norm(b - s)
        assert way > 0 and np.linalg.norm(a - b) < 1e-3 * way


def policy_state(model):
    """What the policy remembers, a dict."""
    return model.gradwatch.store.state(lambda name: name.startswith("policy0/"))


@each
def test_a_fit_with_an_embedding_and_a_nan_batch(policy, reference, data):
    x, y = data
    model, expected, seen = build(), build(), GradientHistory()
    start = model.get_weights()
    # One NaN; the policy's state is as if that batch had not been in the data.
    bad = helper.with_nan(x, 5, BATCH, part=np.s_[0:1, 3])
    helper.fit(model, bad, y, [GradientClipping(policy), seen], BATCH)
    loop(expected, reference(), batches_of(x, y, left_out=[5]))
    assert_trained_alike(model, expected, start)
    assert seen.applied.tolist() == [step != 5 for step in range(STEPS)]
    assert (seen.clipped_norm != seen.global_norm).sum() > 3
    state = policy_state(model)
    assert len(state) == len(policy.initial_state(3))
    assert helper.all_finite([np.array(value) for value in state.values()])


@pytest.mark.thorough
def test_averages_over_windows(data):
    x, y = data
    policy, reference = ZClip(0.5, 0.9, 5), references.ZClip(0.5, 0.9, 5)
    chained = Chain([policy, Centralize()])
    model, expected = build(steps=2), build(steps=2)
    start = model.get_weights()
    helper.fit(model, x, y, [GradientClipping(chained)], BATCH)
    both = references.Chain(reference, references.Centralize(EMBEDDING))
    loop(expected, both, batches_of(x, y, window=2))
    assert_trained_alike(model, expected, start)


def test_sums_over_replicas(strategy, data):
    x, y = data
    policy = Chain([AdaGC(1.01, 0.9, 4), AdaptiveGradientClip(0.2)])
    reference = references.Chain(
        references.AdaGC(1.01, 0.9, 4), references.AdaptiveGradientClip(0.2)
    )
    with strategy.scope():
        model = build()
    expected = build()
    start = expected.get_weights()
    model.set_weights(start)
    helper.fit(model, x, y, [GradientClipping(policy)], BATCH)
    loop(expected, reference, batches_of(x, y))
    assert_trained_alike(model, expected, start)


@pytest.mark.tensorflow
def test_everything_under_xla(data):
    x, y = data
    x = x[:, :16]
    policies = [Centralize(), AdaGC(1.01, 0.9, 4), AutoClip(40.0, window=10)]
    policies += [AdaptiveGradientClip(0.5), ZClip(0.5, 0.9, 4)]
    reference = references.Chain(
        references.Centralize(),
        references.AdaGC(1.01, 0.9, 4),
        references.AutoClip(40.0, window=10),
        references.AdaptiveGradientClip(0.5),
        references.ZClip(0.5, 0.9, 4),
    )

    def dense():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((16,))
        model = keras.Model(inputs, keras.layers.Dense(10)(inputs))
        return helper.compiled(model, keras.optimizers.SGD(RATE), jit_compile=True)

    model, expected = dense(), dense()
    start = model.get_weights()
    helper.fit(model, x, y, [GradientClipping(Chain(policies))], BATCH)
    loop(expected, reference, batches_of(x, y))
    assert_trained_alike(model, expected, start)


@pytest.mark.thorough
def test_another_policy_on_the_same_model_begins_with_its_own_state(data):
    """A window of another length, too."""
    x, y = data
    model = build()
    for policy, reference in (
        (AutoClip(40.0, window=5), references.AutoClip(40.0, window=5)),
        (AutoClip(40.0, window=7), references.AutoClip(40.0, window=7)),
    ):
        expected, start = build(), model.get_weights()
        expected.set_weights(start)
        helper.fit(model, x[:40], y[:40], [GradientClipping(policy)], BATCH)
        loop(expected, reference, batches_of(x[:40], y[:40]))
        assert_trained_alike(model, expected, start)


@pytest.mark.thorough
def test_off_outside_of_fit_with_the_callback(data):
    """A chain, too: its members change nothing then, nor do they remember."""
    x, y = data
    policy = Chain([NormalizeCentered(), ZClip(0.5, 0.9, 4)])
    model, expected = build(), build()
    start = model.get_weights()
    helper.fit(model, x, y, [GradientClipping(policy)], BATCH)
    model.set_weights(start)
    before = policy_state(model)
    helper.fit(model, x, y, [], BATCH)
    helper.fit(expected, x, y, [], BATCH)
    helper.assert_same(model.get_weights(), expected.get_weights())
    assert len(before) == 5
    assert policy_state(model) == before
