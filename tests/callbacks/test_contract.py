"""What holds for every callback."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_gradwatch import callbacks as ours
from keras_gradwatch.callbacks import (
    ExplosionError,
    GradientClipping,
    GradientHistory,
    GradientTensorBoard,
    GradWatch,
    KeepState,
    ReduceLROnExplosion,
    RewindOnExplosion,
    SkipOnExplosion,
    TerminateOnExplosion,
)
from tests import helper

EVERY = {
    GradientClipping: lambda folder: GradientClipping(clipnorm=1e3),
    GradientHistory: lambda folder: GradientHistory(),
    GradientTensorBoard: lambda folder: GradientTensorBoard(folder / "board"),
    GradWatch: lambda folder: GradWatch(folder / "watch", verbose=0),
    KeepState: lambda folder: KeepState(folder / "state"),
    ReduceLROnExplosion: lambda folder: ReduceLROnExplosion(verbose=0),
    RewindOnExplosion: lambda folder: RewindOnExplosion(verbose=0),
    SkipOnExplosion: lambda folder: SkipOnExplosion(verbose=0),
    TerminateOnExplosion: lambda folder: TerminateOnExplosion(limit=9, verbose=0),
}
every = pytest.mark.parametrize("cls", EVERY, ids=lambda cls: cls.__name__)


def some(*kept):
    """Every callback; where steps are traced, only these."""
    parameters = helper.few(kept, EVERY)
    return pytest.mark.parametrize("cls", parameters, ids=lambda cls: cls.__name__)


def test_the_list_is_complete():
    public = {getattr(ours, name) for name in ours.__all__} - {ExplosionError}
    assert public == set(EVERY)


@pytest.mark.thorough
@some(GradWatch, GradientHistory)
def test_two_fits_and_the_log_keys(cls, tmp_path):
    x, y = helper.regression_data(24)
    model, callback = helper.regression(), EVERY[cls](tmp_path)
    steps = []
    for _ in range(2):
        stopping = keras.callbacks.EarlyStopping(
            monitor="grad_norm", mode="min", patience=9
        )
        history = helper.fit(
            model,
            helper.with_nan(x, 1, 8) if cls is not GradientHistory else x,
            y,
            [callback, stopping],
            epochs=2,
            validation_data=(x, y),
        )
        assert set(history) == {"loss", "val_loss", "grad_norm", "explosions"}
        # What only observes lets the NaN through, and every later step explodes.
        observes = cls in (GradientTensorBoard, GradientHistory, KeepState)
        if not observes:
            assert history["explosions"] == [1, 1]
            assert np.isfinite(history["grad_norm"]).all()
        steps.append(model.gradwatch.step)
    assert steps == [6, 12]
    assert type(model.evaluate(x, y, verbose=0)) is float
    assert set(model.evaluate(x, y, verbose=0, return_dict=True)) == {"loss"}


@some(GradWatch)
def test_with_all_others_in_any_order(cls, tmp_path):
    x, y = helper.regression_data(24)
    others = [make(tmp_path) for other, make in EVERY.items() if other is not cls]
    model = helper.regression()
    history = helper.fit(
        model, helper.with_nan(x, 1, 8), y, [EVERY[cls](tmp_path), *others]
    )
    assert history["explosions"] == [1] and np.isfinite(history["loss"]).all()
    for callback in others:
        if hasattr(callback, "events"):
            assert [e.step for e in callback.events] == [1], callback
    assert helper.all_finite(model.get_weights())


@pytest.mark.tensorflow  # elsewhere it is an error in stock Keras
@some(GradWatch, GradientTensorBoard, KeepState)
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_runs_without_any_data(cls, tmp_path):
    """Keras warns and goes on; nothing is changed, and the next `fit` is sound."""
    x, y = helper.regression_data(8)
    model = helper.regression()
    before = model.get_weights()
    callback = EVERY[cls](tmp_path)
    helper.fit(model, x[:0], y[:0], [callback])
    helper.assert_same(model.get_weights(), before)
    assert helper.fit(model, x, y, [callback])["explosions"] == [0]


@every
def test_without_an_optimizer(cls, tmp_path):
    x, y = helper.regression_data(8)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    model.compile(None, "mse")
    with pytest.raises(ValueError, match=r"no optimizer.*compile\(optimizer"):
        helper.fit(model, x, y, [EVERY[cls](tmp_path)])


@some(GradWatch, GradientHistory)
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_without_trainable_variables(cls, tmp_path):
    x, y = helper.regression_data(8)
    model = helper.regression()
    model.trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    helper.fit(model, x, y, [EVERY[cls](tmp_path)])
    helper.assert_same(model.get_weights(), before)


@pytest.mark.tensorflow  # on PyTorch it is another error, on JAX all are zero
@pytest.mark.parametrize(
    "cls", helper.few([GradWatch], [GradWatch, SkipOnExplosion, GradientHistory])
)
def test_all_gradients_none_is_keras_own_error(cls, tmp_path):
    class Unconnected(keras.layers.Layer):
        def build(self, shape):
            self.weight = self.add_weight(shape=(3,), name="weight")

        def call(self, x):
            return x[:, :3]

    x, y = helper.regression_data(8)
    model = keras.Sequential([keras.Input((5,)), Unconnected()])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="No gradients provided for any variable"):
        helper.fit(model, x, y, [EVERY[cls](tmp_path)])


def test_grad_norm_is_the_mean_over_the_epoch():
    x, y = helper.regression_data(24)
    seen = GradientHistory()
    history = helper.fit(helper.regression(), x, y, [seen], epochs=2)
    means = seen.global_norm.astype("float64").reshape(2, 3).mean(axis=1)
    np.testing.assert_allclose(history["grad_norm"], means, 1e-6)


def test_early_stopping_on_grad_norm_stops():
    x, y = helper.regression_data(24)
    stopping = keras.callbacks.EarlyStopping("grad_norm", mode="max", patience=1)
    history = helper.fit(
        helper.regression(), x, y, [GradientHistory(), stopping], epochs=9
    )
    assert len(history["grad_norm"]) == 2
    assert history["grad_norm"][1] < history["grad_norm"][0]


def test_two_policies_are_one_too_many():
    x, y = helper.regression_data(8)
    model = helper.regression()
    clips = GradientClipping(clipnorm=1.0), GradientClipping(clipvalue=0.5)
    with pytest.raises(ValueError, match=r"ClipByNorm.*ClipByValue"):
        helper.fit(model, x, y, clips)
    expected = helper.regression()
    helper.fit(model, x, y)
    helper.fit(expected, x, y)
    helper.assert_same(model.get_weights(), expected.get_weights())
    helper.fit(model, x, y, clips[:1])


def test_the_same_policy_twice_is_one():
    x, y = helper.regression_data(8)
    watching = GradWatch(policy=GradientClipping(clipnorm=0.1).policy)
    once = helper.regression()
    helper.fit(once, x, y, [GradientClipping(clipnorm=0.1)])
    twice = helper.regression()
    helper.fit(twice, x, y, [GradientClipping(clipnorm=0.1), watching])
    helper.assert_same(once.get_weights(), twice.get_weights())


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ReduceLROnExplosion(factor=1.0), "factor.*> 0 and < 1.*1.0"),
        (lambda: ReduceLROnExplosion(factor=0), "factor.*> 0 and < 1.*0"),
        (lambda: ReduceLROnExplosion(factor=np.nan), "factor.*nan"),
        (lambda: ReduceLROnExplosion(cooldown=-1), "cooldown.*>= 0.*-1"),
        (lambda: ReduceLROnExplosion(min_lr=-0.1), "min_lr.*>= 0.*-0.1"),
        (lambda: TerminateOnExplosion(limit=0), "limit.*>= 1.*0"),
        (lambda: TerminateOnExplosion(mode="halt"), "mode.*stop.*raise.*'halt'"),
        (lambda: RewindOnExplosion(snapshot_freq=0), "snapshot_freq.*>= 1.*0"),
        (lambda: RewindOnExplosion(factor=1.0), "factor.*< 1.*1.0"),
        (lambda: RewindOnExplosion(max_rewinds=0), "max_rewinds.*>= 1.*0"),
        (lambda: GradWatch(max_rewinds=-1), "max_rewinds.*>= 0.*-1"),
        (lambda: GradWatch(trust_bound=0), "trust_bound.*> 0.*0"),
        (lambda: GradWatch(factor=2), "factor.*2"),
        (lambda: GradWatch(max_events=0), "max_events.*>= 1"),
        (lambda: GradWatch(dense_steps=-1), "dense_steps.*>= 0"),
        (lambda: GradWatch(sample_freq=0), "sample_freq.*>= 1"),
        (lambda: GradWatch(history_steps=0), "_steps.*>= 1"),
        (lambda: GradWatch(update_freq=0), "update_freq.*>= 1"),
        (lambda: GradientTensorBoard("x", update_freq=0), "update_freq.*>= 1"),
        (lambda: GradientTensorBoard("x", histogram_freq=-1), "histogram_freq.*>= 0"),
        (lambda: GradientTensorBoard(None), "log_dir.*None"),
        (lambda: GradientTensorBoard("x", include="("), r"include.*'\('"),
    ],
)
def test_a_bad_argument_is_named(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize(
    "cls", [GradWatch, ReduceLROnExplosion, SkipOnExplosion, TerminateOnExplosion]
)
def test_a_detector_that_is_none(cls):
    with pytest.raises(TypeError, match=r"detector.*42"):
        cls(detector=42)


def test_each_response_follows_its_own_detector():
    from keras_gradwatch.detectors import NormThreshold

    x, y = helper.regression_data(32)
    y[8:16] *= 1e3
    model, seen = helper.regression(), GradientHistory()
    low = ReduceLROnExplosion(detector=NormThreshold(50.0), cooldown=0, verbose=0)
    high = SkipOnExplosion(detector=NormThreshold(1e9), verbose=0)
    helper.fit(model, x, y, [low, high, seen])
    assert seen.applied.all()
    first = [e for e in seen.events if e.step == 1]
    assert [(e.kind, e.action) for e in first] == [("norm", "rate reduced")]
    assert seen.learning_rate[2] == seen.learning_rate[1] / 2


def test_an_event_is_told_once(capsys):
    x, y = helper.regression_data(24)
    callbacks = [SkipOnExplosion(), ReduceLROnExplosion(), GradWatch(trust_bound=None)]
    helper.fit(helper.regression(), helper.with_nan(x, 1, 8), y, callbacks)
    assert capsys.readouterr().out.count("] epoch 1, step 1: ") == 1


def test_an_endless_explosion_does_not_flood_the_terminal(capsys):
    x, y = helper.regression_data(200)
    helper.fit(helper.regression(), np.full_like(x, np.nan), y, [SkipOnExplosion()], 1)
    assert capsys.readouterr().out.count("[gradwatch]") <= 22


def test_evaluate_with_a_callback_leaves_nothing_for_the_next_fit():
    x, y = helper.regression_data(60)
    model, history = helper.regression(), GradientHistory()
    clipping = GradientClipping(global_clipnorm=1e-6)
    model.evaluate(x, y, verbose=0, callbacks=[clipping])
    helper.fit(model, x, y, [history], batch_size=1)
    assert len(history.steps) == len(x)
    np.testing.assert_array_equal(history.clipped_norm, history.global_norm)


def test_an_evaluate_is_no_fit_of_the_report():
    x, y = helper.regression_data(60)
    model, watch = helper.regression(), GradWatch(verbose=0)
    helper.fit(model, x, y, [watch])
    model.evaluate(x, y, verbose=0, callbacks=[watch])
    assert watch.report().summary.fits == 1


def test_a_fit_that_fails_before_its_first_step_leaves_nothing():
    """Neither a second cut of each rate, nor a `fit` that nobody leads."""
    x, y = helper.regression_data(60)
    used = GradientHistory()
    helper.fit(helper.regression(), x, y, [used])
    model = helper.regression()
    with pytest.raises(ValueError, match="GradientHistory"):
        helper.fit(model, x, y, [GradWatch(verbose=0), used])
    logs = helper.fit(model, x, y, [GradWatch(verbose=0), GradientHistory()], epochs=2)
    monitor = model.gradwatch
    assert len(monitor.plan.responses) == len(set(map(type, monitor.plan.responses)))
    norms = np.float64(logs["grad_norm"])
    assert len(norms) == 2 and norms[1] != norms[0]
    expected = GradientHistory()
    other = helper.regression()
    one = helper.fit(other, x, y, [GradWatch(verbose=0), expected], epochs=2)
    np.testing.assert_array_equal(one["grad_norm"], norms)


def made(tmp_path):
    return [
        GradWatch(tmp_path / "a", verbose=0),
        GradientHistory(),
        GradientTensorBoard(tmp_path / "b"),
        GradientClipping(1.0),
        SkipOnExplosion(verbose=0),
    ]


@pytest.mark.thorough
def test_a_used_callback_can_be_copied_and_pickled(tmp_path):
    """A copy has watched nothing yet; a pickle keeps what was seen."""
    x, y = helper.regression_data(24)
    for used in made(tmp_path):
        helper.fit(helper.regression(), helper.with_nan(x, 1, 8), y, [used])
        kept, fresh = pickle.loads(pickle.dumps(used)), copy.deepcopy(used)
        assert kept.report() == used.report() != fresh.report() or used.summary is None
        assert not getattr(fresh, "events", [])
        assert len(getattr(kept, "events", [])) == len(getattr(used, "events", []))
        helper.fit(helper.regression(), x, y, [fresh])  # another model
        if used.summary is not None:
            assert fresh.summary.steps == 3 and fresh.summary.tripped == 0


def test_a_callback_without_a_report_says_so():
    assert "keeps no report" in GradientClipping(1.0).report()
