"""The arguments of a study, and where its table and its plot go."""

import argparse
import pathlib
import sys

import keras
import numpy as np

# Of a page. What is printed on another backend than TensorFlow has marks of its own.
BEGIN, END = "<!-- printed by the command{} -->", "<!-- until here{} -->"


def parse(doc, shipped, downloaded=(), given=None):
    """The arguments of a study.

    Args:
        doc: The study's docstring.
        shipped: Names of the data that need no download; the first is for `--quick`.
        downloaded: Names of the data that are downloaded; the first is the default.
        given: The arguments, instead of those of the command.

    Returns:
        Namespace with `name`, `quick`, `data`, `log_dir`, `out`, and how many `choices`
        of data there are.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    name = pathlib.Path(sys.argv[0]).stem
    choices = [*downloaded, *shipped]
    words = f"ships with scikit-learn: {', '.join(shipped)}"
    if downloaded:
        words += f"; downloaded: {', '.join(downloaded)}"
    add = parser.add_argument
    add("--quick", action="store_true", help=f"a minute at most, on {shipped[0]}")
    if len(choices) > 1:
        add("--data", choices=choices, default=choices[0], help=words)
    add("--log-dir", type=pathlib.Path, default=pathlib.Path("logs", name))
    add("--out", type=pathlib.Path, help="folder of the page to be renewed")
    arguments = parser.parse_args(given)
    if arguments.quick or len(choices) == 1:
        arguments.data = shipped[0]
    arguments.name, arguments.choices = name, len(choices)
    return arguments


def table(head, rows):
    """Lines of a Markdown table, its columns aligned to be read as text."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row):
        fitted = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        return f"| {' | '.join(fitted)} |"

    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return [line(cells[0]), rule, *(line(row) for row in cells[1:])]


def pyplot():
    """`matplotlib.pyplot`, which draws into files."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def heatmap(axis, values, rows, columns, shades=None):
    """Draws a matrix with its numbers; its colours are told apart by all readers.

    Args:
        axis: Where to draw.
        values: Array [rows, columns], the numbers that are written.
        rows: Names of the rows.
        columns: Names of the columns.
        shades: Array of the same shape, from 0 (dark) to 1; default: `values`.
    """
    shades = values if shades is None else shades
    axis.imshow(shades, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        ink = "black" if shades[i][j] > 0.5 else "white"
        axis.text(j, i, f"{value:.3g}", ha="center", va="center", color=ink)
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(rows)), rows)


def publish(arguments, lines, figure):
    """Prints what a study has found, saves its plot, and renews its page.

    Args:
        arguments: What `parse` returned.
        lines: List of lines of Markdown.
        figure: The plot.
    """
    print(*lines, sep="\n")
    folder = arguments.out or arguments.log_dir
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{arguments.name}.png"
    if not arguments.out or keras.config.backend() == "tensorflow":
        figure.savefig(picture, dpi=100)
    print(f"\nThe plot: {picture}")
    print(f"In TensorBoard: tensorboard --logdir {arguments.log_dir}")
    if arguments.out:
        _renew(folder / f"{arguments.name}.md", arguments, lines)


def _renew(page, arguments, lines):
    """Replaces what stands between the two marks of a page."""
    backend = keras.config.backend()
    on = "" if backend == "tensorflow" else f" on {backend}"
    begin, end = BEGIN.format(on), END.format(on)
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    title = arguments.name.replace("_", " ")
    picture = ["", f"![{title}]({arguments.name}.png)"] if not on else []
    printed = [
        begin,
        "",
        *lines,
        *picture,
        "",
        f"Printed by (Keras {keras.__version__} on {backend}):",
        "",
        f"    python examples/{arguments.name}.py {_command(arguments)}",
        "",
        end,
    ]
    page.write_text(before + "\n".join(printed) + after, encoding="utf-8")


def _command(arguments):
    words = ["--quick"] if arguments.quick else []
    if not arguments.quick and arguments.choices > 1:
        words += ["--data", arguments.data]
    return " ".join([*words, "--out docs/studies"])
