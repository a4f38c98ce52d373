import numpy as np
import pytest

from keras_gradwatch.tensorboard import render

GREY = (190, 190, 190)
MAGENTA = (255, 0, 255)
DARKEST = (68, 1, 84)
BRIGHTEST = (253, 231, 37)


def _names(count):
    return [f"block_{i}/dense/kernel" for i in range(count)]


def _plot(norms, first_step=0):
    """The part of the picture that shows the norms.

    Found from the picture itself: the plot starts in the first row and column in which
    there is a run of pixels of the plot's colours.
    """
    image = render(norms, _names(np.shape(norms)[1]), first_step)
    # Text is grey from ink to white, and so is "not measured": the tests that look for
    # a place have a colour in the first and the last cell.
    spread = np.ptp(image.astype(int), axis=2)
    colored = spread > 40
    # The colour scale below is 12 px high and has at least 3 * 16 px of text above it.
    rows = np.flatnonzero(colored.any(axis=1))
    end = np.flatnonzero(np.diff(rows) > 20)[0]
    top, bottom = rows[0], rows[end] + 1
    columns = np.flatnonzero(colored[top:bottom].any(axis=0))
    return image[top:bottom, columns[0] : columns[-1] + 1]


def _cell(plot, row, column, shape):
    height, width = plot.shape[0] // shape[0], plot.shape[1] // shape[1]
    cell = plot[
        row * height : (row + 1) * height, column * width : (column + 1) * width
    ]
    colors = {tuple(int(v) for v in pixel) for pixel in cell.reshape(-1, 3)}
    (color,) = colors  # a cell has one colour
    return color


def _lightness(color):
    return float(np.dot(color, [0.299, 0.587, 0.114]))


def test_a_row_a_variable_a_column_a_step_and_each_kind_has_its_colour():
    norms = np.array(
        [  # [T=4, V=3]
            [1e-3, 1.0, 1e3],
            [0.0, np.nan, 1.0],
            [np.inf, 1e-3, 1e3],
            [1e3, 1.0, 1e-3],
        ]
    )
    plot = _plot(norms)
    color = {(t, v): _cell(plot, v, t, (3, 4)) for t in range(4) for v in range(3)}
    assert color[0, 0] == color[2, 1] == color[3, 2] == DARKEST
    assert color[1, 0] == DARKEST  # zero
    assert color[0, 2] == color[2, 2] == color[3, 0] == BRIGHTEST
    assert color[1, 1] == GREY
    assert color[2, 0] == MAGENTA
    assert color[0, 1] == color[1, 2] == (33, 144, 141)  # the middle in log10


def test_lightness_rises_with_the_norm():
    norms = np.logspace(-4, 2, 30)[:, np.newaxis]
    plot = _plot(norms)
    lightness = [_lightness(_cell(plot, 0, t, (1, 30))) for t in range(30)]
    assert np.all(np.diff(lightness) > 0)


def test_a_spike_survives_fewer_columns_than_steps():
    for step in (0, 1, 4321, 9_998, 9_999):
        norms = np.full((10_000, 2), 1.0)
        norms[:, 1] = 1.5
        norms[step, 0] = 1e6
        plot = _plot(norms)
        bright = (plot == BRIGHTEST).all(axis=2)
        assert bright.any()
        where = np.flatnonzero(bright.any(axis=0)).mean() / plot.shape[1]
        assert where == pytest.approx(step / 10_000, abs=0.002)
        assert not bright[-1].any()  # it is the first variable's


def test_infinity_survives_fewer_columns_than_steps_and_nan_does_not_hide_it():
    norms = np.full((5_000, 2), np.nan)
    norms[::100] = 1.0
    norms[2_500, 1] = np.inf
    image = render(norms, _names(2), 0)
    # Beyond the legend's square of 12 x 12 there is a column in the plot.
    assert (image == MAGENTA).all(axis=2).sum() == 12 * 12 + 18


def test_a_spike_survives_fewer_rows_than_variables():
    names = _names(4_000)
    quiet = np.ones((3, 4_000))
    quiet[0, 0] = 1e-3
    loud = quiet.copy()
    loud[1, 2_345] = np.inf
    count = [
        (render(norms, names, 0) == MAGENTA).all(axis=2).sum()
        for norms in (quiet, loud)
    ]
    assert count == [144, 144 + 24]


def test_is_never_larger_than_promised():
    long = ["some/very/long/path/" * 20 + str(i) for i in range(5_000)]
    for steps, variables in ((1, 1), (1, 5_000), (100_000, 1), (900, 1_500), (50, 83)):
        norms = np.ones((steps, variables), np.float32)
        image = render(norms, long[:variables], 10**9)
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert image.shape[0] <= 1600 and image.shape[1] <= 1200


def test_names_steps_and_range_are_written():
    norms = np.array([[1.0, 10.0], [2.0, 5.0]])
    image = render(norms, ["a", "b"], 7)
    for other in (
        render(norms, ["a", "c"], 7),
        render(norms, ["a", "b"], 8),
        render(norms * 100, ["a", "b"], 7),  # the same colours on another scale
    ):
        assert image.shape == other.shape
        assert (image != other).any()
    np.testing.assert_array_equal(image, render(norms, ["a", "b"], 7))


def test_every_label_has_a_line_of_its_own():
    # 500 rows of 2 px: a label for every 7th, none of them touching the next.
    names = ["HHHH"] * 500
    image = render(np.ones((2, 500)), names, 0)
    inked = (image[40:1000, :40] < 128).all(axis=2).any(axis=1)
    starts = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    assert len(starts) > 50
    assert set(np.diff(starts)) == {14}


def test_tiny_norms_do_not_use_up_the_colours():
    norms = np.array([[1.0, 1e-30], [0.1, 1.0]])
    plot = _plot(norms)
    assert _cell(plot, 1, 0, (2, 2)) == DARKEST
    # One of twelve decades below the top, not one of thirty.
    assert _cell(plot, 0, 1, (2, 2)) == (198, 224, 46)


def test_steps_are_marked_under_their_columns():
    image = render(np.ones((60, 1)), ["a"], 103)
    rows, columns = np.nonzero((image == (33, 144, 141)).all(axis=2))
    left, below = columns.min(), rows[columns == columns.max()].max() + 1
    marks = np.flatnonzero((image[below + 1] < 128).all(axis=1)) - left
    # 60 columns of 14 px, a mark for 105, 110, ..., 160, in the middle of its column.
    assert marks.tolist() == [14 * (step - 103) + 7 for step in range(105, 163, 5)]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1.0])
def test_a_constant_picture_is_drawn(value):
    color = {np.inf: MAGENTA, 0.0: DARKEST, 1.0: (33, 144, 141)}.get(value, GREY)
    image = render(np.full((2, 2), value), ["a", "b"], 0)
    assert (image == color).all(axis=2).sum() >= 2 * 24 * 2 * 18


def test_the_arguments_are_not_changed():
    norms = np.array([[0.0, np.nan], [np.inf, 1.0]])
    before, names = norms.copy(), ["a", "b"]
    render(norms, names, 0)
    np.testing.assert_array_equal(norms, before)
    assert names == ["a", "b"]


@pytest.mark.parametrize(
    ("norms", "names"),
    [
        (np.zeros((0, 2)), ["a", "b"]),
        (np.zeros((2, 0)), []),
        (np.zeros((2, 2)), ["a"]),
        (np.zeros(2), ["a", "b"]),
    ],
)
def test_refuses_what_does_not_match(norms, names):
    with pytest.raises(ValueError, match=r"`norms` must be \[T, V\]"):
        render(norms, names, 0)
