"""The gradient norms of every variable at every step, as one picture."""

import bisect

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Pixels. What stands around the plot takes the rest of 1200 x 1600.
_MAX_COLUMNS = 880
_MAX_ROWS = 1480
_MAX_LABEL = 260
_MAX_CELL_WIDTH = 24
_MAX_CELL_HEIGHT = 18
_MIN_PLOT_WIDTH = 440
_SCALE_WIDTH = 120
_LABEL_DISTANCE = 14
_LINE = 16
_PAD = 12

_SHOWN_DECADES = 12

_INK = (40, 40, 40)
_NOT_MEASURED = (190, 190, 190)
_NOT_FINITE = (255, 0, 255)
# Viridis at nine equal distances: lightness rises evenly, also for the colour-blind.
_COLORS = np.array(
    [
        [68, 1, 84],
        [71, 44, 122],
        [59, 81, 139],
        [44, 113, 142],
        [33, 144, 141],
        [39, 173, 129],
        [92, 200, 99],
        [170, 220, 50],
        [253, 231, 37],
    ],
    dtype=np.float64,
)


def render(norms, names, first_step, steps_per_row=1):
    """Draws log10 of the norms, a row for each variable and a column for each step.

    Where there are more steps or variables than pixels, a pixel shows the largest of
    its norms, so that a spike never vanishes.

    Args:
        norms: float [T, V], norms >= 0 in the gradient's unit. NaN: not measured
            (grey). Infinite: the gradient was not finite (magenta).
        names: V names, the rows' labels.
        first_step: int, the step of `norms[0]`.
        steps_per_row: int, how many steps each row of `norms` stands for.

    Returns:
        uint8 [H, W, 3], RGB, at most 1200 wide and 1600 high.

    Raises:
        ValueError: if `norms` is empty or does not match `names`.
    """
    norms = np.asarray(norms, dtype=np.float64)
    names = [str(name) for name in names]
    if norms.ndim != 2 or norms.size == 0 or norms.shape[1] != len(names):
        raise ValueError(
            "`norms` must be [T, V] with T > 0 and V = len(names) > 0. "
            f"Received shape {norms.shape} and {len(names)} names"
        )
    cells, first_rows = _shrink(norms.T, _MAX_ROWS)
    cells = _shrink(cells.T, _MAX_COLUMNS)[0].T
    low, high = _log_range(cells)
    plot = _enlarge(_colorize(cells, low, high))
    row_height = plot.shape[0] / len(cells)
    # Rows that are lower than a line of text share labels: every k-th has one.
    every = int(np.ceil(_LABEL_DISTANCE / row_height))
    labels = {row: names[first_rows[row]] for row in range(0, len(cells), every)}
    return _Canvas(plot, labels, row_height).finish(
        low, high, first_step, first_step + len(norms) * steps_per_row - 1
    )


def _shrink(values, limit):
    """Takes the largest of each bucket of rows. NaN only where all of it is NaN."""
    count = min(len(values), limit)
    starts = np.arange(count) * len(values) // count
    return np.fmax.reduceat(values, starts, axis=0), starts


def _log_range(cells):
    """Ends of the colour scale, in log10."""
    positive = cells[np.isfinite(cells) & (cells > 0)]
    if positive.size == 0:
        return 0.0, 0.0
    low, high = np.log10(positive.min()), np.log10(positive.max())
    # Rounding errors of 1e-30 beside norms of 1 must not use up all the colours.
    return max(low, high - _SHOWN_DECADES), high


def _colorize(cells, low, high):
    """uint8 [..., 3] for norms [...]; zero gets the darkest colour."""
    finite = np.isfinite(cells)
    logs = np.full(cells.shape, -np.inf)
    np.log10(cells, out=logs, where=finite & (cells > 0))
    # Equal norms have no low and no high: they get the middle of the scale.
    place = (logs - low) / (high - low) if high > low else np.where(logs < low, 0, 0.5)
    place = np.clip(place, 0, 1)
    table = np.linspace(0, 1, len(_COLORS))
    rgb = np.stack([np.interp(place, table, channel) for channel in _COLORS.T], -1)
    rgb[~finite] = _NOT_FINITE
    rgb[np.isnan(cells)] = _NOT_MEASURED
    return np.round(rgb).astype(np.uint8)


def _enlarge(rgb):
    """Repeats each cell's pixel, so that few cells still make a picture."""
    rows, columns = rgb.shape[:2]
    rgb = np.repeat(rgb, min(_MAX_CELL_HEIGHT, _MAX_ROWS // rows), axis=0)
    return np.repeat(rgb, min(_MAX_CELL_WIDTH, _MAX_COLUMNS // columns), axis=1)


def _font():
    try:
        return ImageFont.load_default(size=12)
    except TypeError:  # Pillow before 10.1 has its default font in one size
        return ImageFont.load_default()


class _Canvas:
    """The plot with everything that is written around it."""

    def __init__(self, plot, labels, row_height):
        self.font = _font()
        labels = {row: self._shorten(text) for row, text in labels.items()}
        self.plot_height, self.plot_width = plot.shape[:2]
        self.left = _PAD + max(self._length(text) for text in labels.values()) + 8
        self.top = _PAD + _LINE + 6
        self.bottom = self.top + self.plot_height
        width = self.left + max(self.plot_width, _MIN_PLOT_WIDTH) + 3 * _PAD
        height = self.bottom + 4 * _LINE + _PAD
        self.image = Image.new("RGB", (width, height), "white")
        self.image.paste(Image.fromarray(plot), (self.left, self.top))
        self.draw = ImageDraw.Draw(self.image)
        for row, text in labels.items():
            y = self.top + int((row + 0.5) * row_height)
            self.draw.line([(self.left - 4, y), (self.left - 1, y)], fill=_INK)
            self._write(self.left - 7, y, text, "rm")

    def finish(self, low, high, first_step, last_step):
        self._write(self.left, _PAD + 8, "gradient norm of each variable", "lm")
        self._draw_steps(first_step, last_step)
        self._draw_scale(low, high)
        return np.asarray(self.image)

    def _draw_steps(self, first_step, last_step):
        steps = last_step - first_step + 1
        for step in _ticks(first_step, last_step, self.plot_width):
            x = self.left + int((step - first_step + 0.5) * self.plot_width / steps)
            self.draw.line([(x, self.bottom), (x, self.bottom + 3)], fill=_INK)
            self._write(x, self.bottom + 12, str(step), "mm")
        text = f"steps {first_step} to {last_step}"
        if steps > self.plot_width:
            text += f", up to {-(-steps // self.plot_width)} to a column: their largest"
        self._write(self.left, self.bottom + 12 + _LINE, text, "lm")

    def _draw_scale(self, low, high):
        x, y = self.left, self.bottom + 12 + 2 * _LINE + 6
        x = self._write(x, y, f"log10 norm   {low:.1f}", "lm") + 6
        # The bar goes through the same colours as the plot does.
        ramp = _colorize(np.logspace(0, 1, _SCALE_WIDTH), 0, 1)
        bar = np.repeat(ramp[np.newaxis], 12, axis=0)
        self.image.paste(Image.fromarray(bar), (x, y - 6))
        x = self._write(x + _SCALE_WIDTH + 6, y, f"{high:.1f}", "lm") + 18
        for color, text in (
            (_NOT_FINITE, "not finite"),
            (_NOT_MEASURED, "not measured"),
        ):
            self.draw.rectangle([x, y - 6, x + 11, y + 5], fill=color)
            x = self._write(x + 17, y, text, "lm") + 18

    def _write(self, x, y, text, anchor):
        """Writes a line of text. Returns where one that starts at `x` ends."""
        self.draw.text((x, y), text, fill=_INK, font=self.font, anchor=anchor)
        return x + self._length(text)

    def _shorten(self, text):
        """Drops the head of a name too long: paths differ at their tail."""
        if self._length(text) <= _MAX_LABEL:
            return text
        # By halving: to measure a text takes as long as to draw it.
        start = bisect.bisect_left(
            range(len(text)),
            -_MAX_LABEL,
            key=lambda start: -self._length("..." + text[start:]),
        )
        return "..." + text[start:]

    def _length(self, text):
        return int(np.ceil(self.font.getlength(text)))


def _ticks(first_step, last_step, width):
    """Round steps between the two, far enough apart to be read."""
    fitting = max(1, width // (9 * len(str(last_step)) + 20))
    distance = 1
    while (last_step - first_step) / distance >= fitting:
        # 1, 2, 5, 10, 20, 50, ...
        distance = distance * 5 // 2 if str(distance)[0] == "2" else distance * 2
    return range(-(-first_step // distance) * distance, last_step + 1, distance)
