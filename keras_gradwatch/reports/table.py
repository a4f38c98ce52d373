"""The kernels of a run in a table, the most affected first."""

import math

# Lines of the table, at most.
MAX_LINES = 8
COLUMNS = ("norm: first", "largest", "at step", "last", "update/weights", "zeros")
# Symptoms of gradients that are too small.
SMALL = {"vanishing", "dead units"}


def table(summary, found):
    """Returns the lines of the table; empty if nothing is known of any kernel."""
    shapes = summary.model.get("shapes", {})
    rows = [
        (name, numbers)
        for name, numbers in summary.variables.items()
        if len(shapes.get(name, (0, 0))) >= 2 and "norm_first" in numbers
    ]
    if not rows:
        return []
    small = bool(found) and found[0].kind in SMALL
    first = summary.first_event["variable"] if summary.first_event else None
    rows.sort(key=lambda row: _affected(row[1], small, row[0] == first), reverse=True)
    shown, left_out = rows[:MAX_LINES], len(rows) - MAX_LINES
    width = max(len(name) for name, _ in shown)
    lines = ["  ".join([" " * width, *COLUMNS])]
    for name, numbers in shown:
        cells = (
            _number(numbers["norm_first"]),
            _number(numbers["norm_largest"]),
            str(numbers.get("largest_step", "")),
            _number(numbers["norm_last"]),
            _number(numbers.get("ratio_largest")),
            _share(numbers.get("zeros_last")),
        )
        padded = [c.rjust(len(h)) for c, h in zip(cells, COLUMNS, strict=True)]
        lines.append("  ".join([name.ljust(width), *padded]))
    if left_out > 0:
        lines.append(f"less affected kernels, not shown: {left_out}")
    return lines


def _affected(numbers, small, first):
    """Returns a sort key: whether it had the first event, and how affected it is."""
    if small:
        return first, -numbers["norm_last"]
    growth = numbers["norm_largest"] / max(numbers["norm_first"], 1e-30)
    return first, max(growth, numbers.get("ratio_largest", 0.0))


def _number(value):
    return "-" if value is None or not math.isfinite(value) else f"{value:.2g}"


def _share(value):
    return "-" if value is None else f"{value:.0%}"
