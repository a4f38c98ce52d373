"""The gradient norms of every variable at every step, as one image.

TensorBoard shows it 350 pixels wide, using every second pixel: so the text is large.
"""

import bisect
import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Pixels.
_WIDTH = 700
_MIN_PLOT_HEIGHT, _MAX_PLOT_HEIGHT = 200, 960
_MAX_LABEL = 240
_ROW_HEIGHT, _LEAST_ROW_HEIGHT = 34, 6
_TEXT = 23
_LINE = 34
_PAD = 12
_SCALE_WIDTH = 200
_SQUARE = 18

# The colours span these quantiles of the norms, and so many decades around the median.
_QUANTILES = (0.05, 0.95)
_DECADES = 3

_INK = (40, 40, 40)
_ZERO = (255, 255, 255)
_NOT_MEASURED = (170, 170, 170)
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
    """Draws the norms on a log scale, one row per variable and one column per step.

    If there are more steps or variables than pixels, a pixel shows the largest of its
    norms, so that no spike is lost. The colors span the 5th to the 95th percentile of
    the norms, and at most three decades on both sides of the median, so that a few
    large norms do not make all others look alike. Returns an image, uint8 [H, 700, 3],
    at most 1200 high.

    Args:
        norms: Float [T, V], nonnegative; 0 is white, NaN (not measured) is gray,
            infinity (a gradient that is not finite) is magenta.
        names: V names, the rows' labels; their common prefix is removed.
        first_step: Step of `norms[0]`.
        steps_per_row: Number of steps that each row of `norms` stands for.
    """
    norms = np.asarray(norms, dtype=np.float64)
    low, high = _log_range(norms)
    names = _without_prefix(names)
    height = _plot_height(len(names))
    cells, first_rows = _shrink(norms.T, height)
    row_height = height / len(cells)
    # Rows that are lower than a line of text share labels: every k-th has one.
    every = int(np.ceil(1.2 * _TEXT / row_height))
    labels = {row: names[first_rows[row]] for row in range(0, len(cells), every)}
    canvas = _Canvas(labels, row_height, height)
    cells = _shrink(cells.T, canvas.plot_width)[0].T
    canvas.draw_plot(_colorize(cells, low, high))
    canvas.draw_steps(first_step, first_step + len(norms) * steps_per_row - 1)
    canvas.draw_scale(low, high)
    return np.asarray(canvas.image)


def _without_prefix(names):
    """Removes the leading folders that all names share."""
    paths = [name.split("/") for name in names]
    folders = zip(*(path[:-1] for path in paths), strict=False)
    shared = 0
    if len(names) > 1:
        shared = sum(1 for _ in itertools.takewhile(lambda f: len({*f}) == 1, folders))
    return ["/".join(path[shared:]) for path in paths]


def _plot_height(variables):
    """Returns the plot's height in pixels, which grows with the number of variables."""
    usual = min(variables * _ROW_HEIGHT, 420)
    height = max(usual, variables * _LEAST_ROW_HEIGHT, _MIN_PLOT_HEIGHT)
    return min(height, _MAX_PLOT_HEIGHT)


def _shrink(values, limit):
    """Takes the maximum of each bucket of rows, NaN only if all of it is NaN."""
    count = min(len(values), limit)
    starts = np.arange(count) * len(values) // count
    return np.fmax.reduceat(values, starts, axis=0), starts


def _log_range(norms):
    """Returns the ends of the color scale in log10, at least one decade apart."""
    positive = norms[np.isfinite(norms) & (norms > 0)]
    if positive.size == 0:
        return -0.5, 0.5
    # A sample of many will do.
    logs = np.log10(positive[:: max(1, positive.size // 100_000)])
    middle = np.median(logs)
    low, high = np.quantile(logs, _QUANTILES)
    low, high = max(low, middle - _DECADES), min(high, middle + _DECADES)
    missing = max(0.0, 1 - (high - low)) / 2
    return low - missing, high + missing


def _colorize(cells, low, high):
    """Maps norms [...] to colors, uint8 [..., 3]."""
    finite = np.isfinite(cells)
    logs = np.zeros(cells.shape)
    np.log10(cells, out=logs, where=finite & (cells > 0))
    place = np.clip((logs - low) / (high - low), 0, 1)
    table = np.linspace(0, 1, len(_COLORS))
    rgb = np.stack([np.interp(place, table, channel) for channel in _COLORS.T], -1)
    rgb[cells == 0] = _ZERO
    rgb[~finite] = _NOT_FINITE
    rgb[np.isnan(cells)] = _NOT_MEASURED
    return np.round(rgb).astype(np.uint8)


def _font():
    try:
        return ImageFont.load_default(size=_TEXT)
    except TypeError:  # Pillow before 10.1 has its default font in one size
        return ImageFont.load_default()


class _Canvas:
    """The plot, with its title, labels, axis and legend."""

    def __init__(self, labels, row_height, height):
        self.font = _font()
        labels = {row: self._shorten(text) for row, text in labels.items()}
        self.left = _PAD + max(self._length(text) for text in labels.values()) + 10
        self.top, self.height = _PAD + _LINE, height
        self.bottom = self.top + height
        self.plot_width = _WIDTH - self.left - 2 * _PAD
        size = (_WIDTH, self.bottom + 3 * _LINE + 2 * _PAD)
        self.image = Image.new("RGB", size, "white")
        self.draw = ImageDraw.Draw(self.image)
        self._write(self.left, _PAD + 8, "gradient norm of each variable", "lm")
        for row, text in labels.items():
            y = self.top + int((row + 0.5) * row_height)
            self.draw.line([(self.left - 5, y), (self.left - 1, y)], fill=_INK)
            self._write(self.left - 9, y, text, "rm")

    def draw_plot(self, rgb):
        """Draws the cells, repeated until they fill the plot, and a frame."""
        rows, columns = rgb.shape[:2]
        rgb = rgb[np.arange(self.height) * rows // self.height]
        rgb = rgb[:, np.arange(self.plot_width) * columns // self.plot_width]
        self.image.paste(Image.fromarray(rgb), (self.left, self.top))
        corner = self.left + self.plot_width + 1, self.bottom + 1
        frame = [(self.left - 2, self.top - 2), corner]
        self.draw.rectangle(frame, outline=_INK, width=2)

    def draw_steps(self, first_step, last_step):
        """Draws the axis."""
        steps, y = last_step - first_step + 1, self.bottom + _LINE // 2 + 4
        self._write(self.left - 12, y, "step", "rm")
        for step in _ticks(first_step, last_step, self.plot_width):
            x = self.left + int((step - first_step + 0.5) * self.plot_width / steps)
            self.draw.line([(x, self.bottom), (x, self.bottom + 5)], fill=_INK)
            self._write(x, y, str(step), "mm")

    def draw_scale(self, low, high):
        """Draws the legend of the colors."""
        y = self.bottom + 2 * _LINE
        x = self._write(_PAD, y, f"norm   {_short(10**low)}", "lm") + 8
        # The bar goes through the same colours as the plot does.
        ramp = _colorize(np.logspace(0, 1, _SCALE_WIDTH), 0, 1)
        bar = np.repeat(ramp[np.newaxis], _SQUARE, axis=0)
        self.image.paste(Image.fromarray(bar), (x, y - _SQUARE // 2))
        self._write(x + _SCALE_WIDTH + 8, y, _short(10**high), "lm")
        x, y = _PAD, y + _LINE
        for color, text in (
            (_ZERO, "zero"),
            (_NOT_FINITE, "not finite"),
            (_NOT_MEASURED, "not measured"),
        ):
            corner = (x + _SQUARE - 1, y + _SQUARE // 2 - 1)
            square = [(x, y - _SQUARE // 2), corner]
            self.draw.rectangle(square, fill=color, outline=_INK, width=2)
            x = self._write(x + _SQUARE + 6, y, text, "lm") + 24

    def _write(self, x, y, text, anchor):
        """Writes a line of text, and returns where it ends if it starts at `x`."""
        self.draw.text((x, y), text, fill=_INK, font=self.font, anchor=anchor)
        return x + self._length(text)

    def _shorten(self, text):
        """Drops the middle of a path or the start of a name that is too long."""
        if self._length(text) <= _MAX_LABEL:
            return text
        first, *rest = text.split("/")
        for begin in range(1, len(rest)):
            shorter = "/".join([first, "...", *rest[begin:]])
            if self._length(shorter) <= _MAX_LABEL:
                return shorter
        # By halving: to measure a text takes as long as to draw it.
        start = bisect.bisect_left(
            range(len(text)),
            -_MAX_LABEL,
            key=lambda start: -self._length("..." + text[start:]),
        )
        return "..." + text[start:]

    def _length(self, text):
        return int(np.ceil(self.font.getlength(text)))


def _short(number):
    """Formats a number with one significant digit: 0.03, 200, 1e+14."""
    return f"{float(f'{number:.1g}'):g}"


def _ticks(first_step, last_step, width):
    """Returns round steps in a range, far enough apart to be legible."""
    fitting = max(1, width // (_TEXT * len(str(last_step)) // 2 + 40))
    distance = 1
    while (last_step - first_step) / distance >= fitting:
        # 1, 2, 5, 10, 20, 50, ...
        distance = distance * 5 // 2 if str(distance)[0] == "2" else distance * 2
    return range(-(-first_step // distance) * distance, last_step + 1, distance)
