"""What a real fit writes, read back with TensorBoard's own loader."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from keras_gradwatch.callbacks import (
    GradientClipping,
    GradientHistory,
    GradientTensorBoard,
    GradWatch,
    SkipOnExplosion,
)
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard import tags
from tests import helper


def read(log_dir):
    """Dict of tag to `(steps, values)`."""
    guidance = {"tensors": 0}
    accumulator = EventAccumulator(str(log_dir / "gradwatch"), guidance).Reload()
    series = {}
    for tag in accumulator.Tags()["tensors"]:
        events = accumulator.Tensors(tag)
        values = [tensor_util.make_ndarray(event.tensor_proto) for event in events]
        series[tag] = [event.step for event in events], values
    return series


def tag_of(series, variable, statistic):
    """The tag of a statistic of a variable, whatever the rank of its layer."""
    layer, _, leaf = variable.rpartition("/")
    end = f"_{layer.replace('/', '.')}/{leaf}/{statistic}"
    (tag,) = (tag for tag in series if tag.endswith(end))
    return tag


def logged(tmp_path, *others, steps=24, bad=None, fits=1, **kwargs):
    x, y = helper.regression_data(steps)
    x = x if bad is None else helper.with_nan(x, bad, 1)
    board, seen = GradientTensorBoard(tmp_path, **kwargs), GradientHistory()
    model = helper.regression()
    for _ in range(fits):
        helper.fit(model, x, y, [board, seen, *others], batch_size=1)
    return read(tmp_path), seen


def test_scalars_are_those_of_the_steps(tmp_path):
    clipping = GradientClipping(global_clipnorm=0.5)
    series, seen = logged(tmp_path, clipping, update_freq=5)
    steps, norms = series[tags.GRAD_NORM]
    assert steps == [0, 5, 10, 15, 20, 23]  # the first, each fifth, the last
    helper.assert_same(np.array(norms), seen.global_norm[steps])
    helper.assert_same(
        np.array(series[tags.GRAD_NORM_CLIPPED][1]), seen.clipped_norm[steps]
    )
    helper.assert_same(np.array(series[tags.LOSS][1]), seen.loss[steps])
    for tag in (tags.GRAD_NORM, tags.GRAD_NORM_CLIPPED):
        logs = np.log10(np.array(series[tag][1], "float64"))
        np.testing.assert_allclose(series[f"{tag}_log10"][1], logs, 1e-6)
    factors = np.array(series[tags.CLIP_FACTOR][1])
    np.testing.assert_allclose(
        factors, (seen.clipped_norm / seen.global_norm)[steps], 1e-6
    )
    windows = np.split(np.arange(24), np.array(steps[:-1]) + 1)
    clipped = seen.clipped_norm < seen.global_norm
    for window, share, largest in zip(
        windows,
        series[tags.CLIPPED_SHARE][1],
        series[tags.GRAD_NORM_MAX][1],
        strict=True,
    ):
        np.testing.assert_allclose(share, clipped[window].mean(), 1e-6)
        assert largest == seen.global_norm[window].max()
    np.testing.assert_allclose(series[tags.LEARNING_RATE][1], 0.01, 1e-6)
    assert set(tags.SCALARS) <= set(series)
    assert not [tag for tag in series if tag.startswith("gradwatch_")]


def test_the_step_axis_goes_on_over_fits(tmp_path):
    series, _ = logged(tmp_path, update_freq=10, fits=2)
    steps, _ = series[tags.GRAD_NORM]
    assert steps == sorted(set(steps))
    assert steps[0] == 0 and 24 in steps and steps[-1] == 47


def test_an_event_is_a_text_and_a_count(tmp_path):
    skip = SkipOnExplosion(verbose=0)
    series, _ = logged(tmp_path, skip, bad=7, update_freq=50)
    steps, texts = series[tags.EVENTS]
    what, done = skip.events[0].message.removeprefix("step 7: ").split("; ")
    text = f"### Epoch 1, step 7\n\n- **nonfinite**: {what}. *{done.capitalize()}.*"
    assert steps == [7] and texts[0].item().decode() == text
    steps, texts = series[tags.REPORT]
    assert steps == [23]
    lines = texts[0].item().decode().split("\n\n")
    assert lines[0] == "After step 23, epoch 1:"
    assert lines[1].startswith("### 1 of 24 steps had non-finite values")
    assert "\n- **Numbers**: " in lines[3]
    steps, counts = series[tags.EXPLOSIONS]
    assert dict(zip(steps, counts, strict=True))[7] == 1
    steps, counts = series[tags.NONFINITE_COUNT]
    assert dict(zip(steps, counts, strict=True))[7] == 18
    assert 7 not in series[tags.GRAD_NORM][0]  # NaN would be invisible
    for tag in tags.SCALARS:
        assert np.isfinite(series[tag][1]).all()


def test_per_variable(tmp_path):
    series, seen = logged(tmp_path, update_freq=10, per_variable=True)
    kernel, bias = seen.variables
    for variable, v in ((kernel, 0), (bias, 1)):
        steps, values = series[tag_of(series, variable, "norm")]
        assert steps[0] == 0 and steps[-1] == 23
        helper.assert_same(np.array(values), seen.statistics["norm"][steps, v])
        logs = series[tag_of(series, variable, "norm_log10")][1]
        np.testing.assert_allclose(logs, np.log10(np.float64(values)), 1e-6)
    weights = series[tag_of(series, kernel, "weight_norm")]
    assert weights[0][0] == 0 and np.isfinite(weights[1]).all()


def test_each_step_around_an_event_has_a_point(tmp_path):
    series, _ = logged(tmp_path, SkipOnExplosion(verbose=0), steps=250, bad=120)
    steps, _ = series[tags.CLIPPED_SHARE]
    assert steps == [0, 50, *range(70, 171), 200, 249]


@pytest.mark.thorough
def test_points_before_an_event_count_their_own_step(tmp_path):
    """They are written when the event is known, later than their steps."""
    clipping = GradientClipping(global_clipnorm=1e-3)
    series, _ = logged(tmp_path, clipping, steps=24, bad=7, update_freq=50)
    steps, shares = series[tags.CLIPPED_SHARE]
    assert steps == list(range(24))
    assert [step for step, share in zip(steps, shares, strict=True) if not share] == [7]


@pytest.mark.parametrize(
    ("freq", "expected"), [("batch", range(24)), ("epoch", [0, 23, 24, 47]), (50, None)]
)
def test_update_freq(freq, expected, tmp_path):
    series, _ = logged(tmp_path, update_freq=freq, fits=2)
    steps, _ = series[tags.GRAD_NORM]
    if freq == "batch":
        expected = range(48)
    assert steps == list(expected or [0, 23, 24, 47])


@pytest.mark.thorough
def test_a_point_has_all_statistics_of_its_step(tmp_path):
    x, y = helper.regression_data(24)
    board = GradientTensorBoard(tmp_path, update_freq=10, per_variable=True)
    model = helper.regression()
    helper.fit(model, x, y, [board], batch_size=1)
    series = read(tmp_path)
    for statistic in NAMES:
        kernel = model.trainable_variables[0].path
        steps, _ = series[tag_of(series, kernel, statistic)]
        assert steps[:3] == [0, 10, 20]


def test_include(tmp_path):
    series, seen = logged(
        tmp_path, per_variable=True, histogram_freq=10, include="kernel"
    )
    by_variable = [tag for tag in series if tag.startswith("gradwatch_")]
    assert by_variable and all("kernel" in tag for tag in by_variable)
    assert tag_of(series, seen.variables[0], "gradient") in by_variable


def test_histograms_count_the_gradient(tmp_path):
    series, seen = logged(tmp_path, histogram_freq=8)
    for v, (variable, size) in enumerate(zip(seen.variables, (15, 3), strict=True)):
        steps, values = series[tag_of(series, variable, "gradient")]
        assert steps == [0, 8, 16]
        for step, bins in zip(steps, values, strict=True):
            assert bins[:, 2].sum() == size
            largest = np.abs(bins[:, :2]).max()
            limit = seen.statistics["max_abs"][step, v]
            if np.isfinite(limit):  # sampled at this step
                np.testing.assert_allclose(largest, limit, 1e-5)


def test_heatmap_and_layout(tmp_path):
    series, _ = logged(tmp_path)
    steps, images = series[tags.HEATMAP]
    assert steps[-1] == 23
    width, height, png = images[-1]
    assert png.startswith(b"\x89PNG") and int(width) > 0 and int(height) > 0
    assert "custom_scalars__config__" in series


def test_the_last_heatmap_has_all_epochs(tmp_path):
    x, y = helper.regression_data(4)
    board = GradientTensorBoard(tmp_path)
    helper.fit(helper.regression(), x, y, [board], batch_size=1, epochs=5)
    assert read(tmp_path)[tags.HEATMAP][0] == [3, 7, 15, 19]


def test_gradwatch_logs_the_same(tmp_path):
    x, y = helper.regression_data(24)
    board = GradientTensorBoard(tmp_path / "board", 5, True)
    watching = GradWatch(tmp_path / "watch", update_freq=5, per_variable=True)
    helper.fit(helper.regression(), x, y, [board, watching], batch_size=1)
    first, second = read(tmp_path / "board"), read(tmp_path / "watch")
    assert set(first) == set(second)
    for tag in tags.SCALARS:
        helper.assert_same(second[tag], first[tag])


@pytest.mark.tensorflow
@pytest.mark.jax
def test_steps_per_execution(tmp_path):
    x, y = helper.regression_data(23)
    board = GradientTensorBoard(tmp_path, update_freq=5)
    model = helper.regression(steps_per_execution=4)
    helper.fit(model, x, y, [board], batch_size=1)
    assert read(tmp_path)[tags.GRAD_NORM][0] == [0, 5, 10, 15, 20, 22]


def test_two_layers_of_one_name_have_a_tag_each(tmp_path):
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner = keras.layers.Dense(3, name="q")

        def build(self, shape):
            self.inner.build(shape)

        def call(self, x):
            return self.inner(x)

    class Two(keras.Model):
        def __init__(self):
            super().__init__(name="two")
            self.first, self.second = Block(), Block()

        def call(self, x):
            return self.first(x) + self.second(x)

    model = Two()
    model.compile("sgd", "mse")
    x, y = helper.regression_data(8)
    seen = GradientHistory()
    board = GradientTensorBoard(tmp_path, per_variable=True)
    helper.fit(model, x, y, [seen, board])
    assert len(set(seen.variables)) == len(model.trainable_variables) == 4
    assert len([tag for tag in read(tmp_path) if tag.endswith("/norm")]) == 4


@pytest.mark.parametrize("make", [GradientTensorBoard, GradWatch])
def test_a_directory_that_cannot_be_written(make, tmp_path):
    (tmp_path / "file").write_text("no directory")
    x, y = helper.regression_data(8)
    model = helper.regression()
    before = model.get_weights()
    with pytest.raises(ValueError, match="log_dir"):
        helper.fit(model, x, y, [make(tmp_path / "file")])
    helper.assert_same(model.get_weights(), before)
    helper.fit(model, x, y, [make(tmp_path / "folder")])


def test_steps_of_a_fit_without_callbacks_are_not_logged(tmp_path):
    x, y = helper.regression_data(16)
    model, board = helper.regression(), GradientTensorBoard(tmp_path, update_freq=1)
    helper.fit(model, x, y, [board])
    helper.fit(model, x, y)
    helper.fit(model, x, y, [board])
    assert read(tmp_path)[tags.GRAD_NORM][0] == [0, 1, 4, 5]


def test_a_run_that_was_interrupted_goes_on(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    x, y = helper.regression_data(16)
    model, board = helper.regression(), GradientTensorBoard(tmp_path, update_freq=1)
    with pytest.raises(KeyboardInterrupt):
        helper.fit(model, x, y, [board, Interrupt()])
    helper.fit(model, x, y, [board])
    assert read(tmp_path)[tags.GRAD_NORM][0] == [0, 1, 2]
