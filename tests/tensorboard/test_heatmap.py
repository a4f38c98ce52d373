import numpy as np
import pytest

from keras_gradwatch.tensorboard import render

GREY = (170, 170, 170)
MAGENTA = (255, 0, 255)
WHITE = (255, 255, 255)
DARKEST = (68, 1, 84)
MIDDLE = (33, 144, 141)
BRIGHTEST = (253, 231, 37)
INK = (40, 40, 40)


def _names(count):
    return [f"block_{i}/dense/kernel" for i in range(count)]


def _plot(norms, names=None):
    """The part of the picture that shows the norms: what its frame encloses."""
    names = names or _names(np.shape(norms)[1])
    image = render(norms, names, 0)
    dark = (image == INK).all(axis=2)
    top, bottom = np.flatnonzero(dark.sum(axis=1) > 350)[[1, -2]]
    left, right = np.flatnonzero(dark[top : bottom + 1].all(axis=0))[[1, -2]]
    return image[top + 1 : bottom, left + 1 : right]


def _cell(plot, row, column, shape):
    height, width = plot.shape[0] / shape[0], plot.shape[1] / shape[1]
    # Without its edges: a cell need not be a whole number of pixels.
    rows = slice(int(row * height) + 2, int((row + 1) * height) - 1)
    columns = slice(int(column * width) + 2, int((column + 1) * width) - 1)
    cell = plot[rows, columns]
    colors = {tuple(int(v) for v in pixel) for pixel in cell.reshape(-1, 3)}
    (color,) = colors  # a cell has one colour
    return color


def _lightness(color):
    return float(np.dot(color, [0.299, 0.587, 0.114]))


def test_a_row_a_variable_a_column_a_step_and_each_kind_has_its_colour():
    norms = np.array(
        [  # [T=4, V=3]
            [1e-1, 1.0, 1e1],
            [0.0, np.nan, 1.0],
            [np.inf, 1e-1, 1e1],
            [1e1, 1.0, 1e-1],
        ]
    )
    plot = _plot(norms)
    assert plot.shape[0] == 200 and plot.shape[1] > 400
    color = {(t, v): _cell(plot, v, t, (3, 4)) for t in range(4) for v in range(3)}
    assert color[0, 0] == color[2, 1] == color[3, 2] == DARKEST
    assert color[1, 0] == WHITE
    assert color[0, 2] == color[2, 2] == color[3, 0] == BRIGHTEST
    assert color[1, 1] == GREY
    assert color[2, 0] == MAGENTA
    assert color[0, 1] == color[1, 2] == MIDDLE  # in log10


def test_lightness_rises_with_the_norm():
    norms = np.logspace(-3, 3, 28)[:, np.newaxis]
    plot = _plot(norms)
    lightness = [_lightness(_cell(plot, 0, t, (1, 28))) for t in range(28)]
    assert np.all(np.diff(lightness) >= 0)
    assert np.all(np.diff(lightness[2:-2]) > 0)  # within the quantiles


def test_an_explosion_leaves_healthy_norms_their_colours():
    """A third of the steps has norms of up to 1e14."""
    norms = np.array([[0.1, 1.0, 10.0]] * 6 + [[1e14] * 3, [1e3] * 3, [1e9] * 3])
    norms[0, 0] = 0
    plot = _plot(norms)
    shown = {
        (t, v): _lightness(_cell(plot, v, t, (3, 9))) for t in range(9) for v in (0, 2)
    }
    assert shown[0, 0] == pytest.approx(255)
    assert all(shown[t, v] == shown[6, 0] for t in (6, 8) for v in (0, 2))
    assert shown[1, 0] + 20 < shown[1, 2] < shown[6, 0] - 20


def test_a_spike_survives_fewer_columns_than_steps():
    for step in (0, 1, 4321, 9_998, 9_999):
        norms = np.full((10_000, 2), 1.0)
        norms[step, 0] = 1e6
        plot = _plot(norms)
        bright = (plot == BRIGHTEST).all(axis=2)
        assert bright.any()
        where = np.flatnonzero(bright.any(axis=0)).mean() / plot.shape[1]
        assert where == pytest.approx(step / 10_000, abs=0.003)
        assert not bright[-1].any()  # it is the first variable's


def test_infinity_survives_fewer_columns_than_steps_and_nan_does_not_hide_it():
    norms = np.full((5_000, 2), np.nan)
    norms[::100] = 1.0
    norms[2_500, 1] = np.inf
    assert (_plot(norms) == MAGENTA).all(axis=2).sum() == 100  # half of the height


def test_a_spike_survives_fewer_rows_than_variables():
    quiet = np.ones((3, 4_000))
    loud = quiet.copy()
    loud[1, 2_345] = np.inf
    assert not (_plot(quiet) == MAGENTA).all(axis=2).any()
    row, column = np.nonzero((_plot(loud) == MAGENTA).all(axis=2))
    assert set(row) == {round(2_345 * 960 / 4000)}
    third = _plot(loud).shape[1] / 3
    assert third - 1 <= column.min() < column.max() <= 2 * third


def test_is_never_larger_than_promised():
    long = ["some/very/long/path/" * 20 + str(i) for i in range(5_000)]
    for steps, variables in ((1, 1), (1, 5_000), (100_000, 1), (900, 1_500), (50, 83)):
        norms = np.ones((steps, variables), np.float32)
        image = render(norms, long[:variables], 10**9)
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert image.shape[0] <= 1200 and image.shape[1] == 700


def test_names_steps_and_range_are_written():
    norms = np.array([[1.0, 10.0], [2.0, 5.0]])
    names = ["a", "longest"]
    image = render(norms, names, 7)
    for other in (
        render(norms, ["b", "longest"], 7),
        render(norms, names, 8),
        render(norms * 100, names, 7),  # the same colours on another scale
    ):
        assert image.shape == other.shape
        assert (image != other).any()
    np.testing.assert_array_equal(image, render(norms, names, 7))


def test_every_label_has_a_line_of_its_own():
    # 300 rows of 3.2 px: a label for every 9th, none of them touching the next.
    image = render(np.ones((2, 300)), ["HHHH"] * 300, 0)
    inked = (image[45:1000, :40] < 128).all(axis=2).any(axis=1)
    starts = np.flatnonzero(np.diff(inked.astype(int)) == 1)
    assert len(starts) > 30
    assert set(np.diff(starts)) <= {28, 29}


@pytest.mark.parametrize(
    ("names", "same"),
    [
        (["model/a/kernel", "model/b/kernel"], ["a/kernel", "b/kernel"]),
        (["model/ab", "model/ac"], ["ab", "ac"]),  # a folder goes as a whole
        (["a", "b"], ["x/a", "x/b"]),
    ],
)
def test_what_all_names_begin_with_is_left_out(names, same):
    pictures = [render(np.ones((2, 2)), n, 0) for n in (names, same)]
    np.testing.assert_array_equal(*pictures)


def test_a_long_path_keeps_its_head_and_its_tail():
    long = "block_3/" + "some_folder/" * 10 + "query/kernel"
    short = "block_3/.../some_folder/query/kernel"
    pictures = [render(np.ones((2, 2)), ["b", n], 0) for n in (long, short)]
    np.testing.assert_array_equal(*pictures)


def test_steps_are_marked_under_their_columns():
    image = render(np.ones((56, 1)), ["a"], 103)
    rows, columns = np.nonzero((image == MIDDLE).all(axis=2))
    below = rows[columns == columns.max()].max() + 1
    left = columns[rows == below - 1].min()
    width = (columns[rows == below - 1].max() + 1 - left) / 56
    marks = np.flatnonzero((image[below + 3] < 128).all(axis=1)) - left
    # A mark for 110, 120, ..., in the middle of its column.
    expected = [width * (step - 103 + 0.5) for step in range(110, 159, 10)]
    np.testing.assert_allclose(marks, expected, atol=1)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 1.0])
def test_a_constant_picture_is_drawn(value):
    color = {np.inf: MAGENTA, 0.0: WHITE, 1.0: MIDDLE}.get(value, GREY)
    assert (_plot(np.full((2, 2), value)) == color).all()


def test_the_arguments_are_not_changed():
    norms = np.array([[0.0, np.nan], [np.inf, 1.0]])
    before, names = norms.copy(), ["a", "b"]
    render(norms, names, 0)
    np.testing.assert_array_equal(norms, before)
    assert names == ["a", "b"]
