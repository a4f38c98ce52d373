"""What happened, in plain words."""

import math

from keras_gradwatch.reports.diagnosis import causes, symptoms
from keras_gradwatch.reports.diagnosis.causes import clip

# Lines of the table of kernels, at most.
MAX_LINES = 8
COLUMNS = ("norm: first", "largest", "at step", "last", "update/weights", "zeros")


def explain(summary, stopped=False):
    """Tells what a run went through, why, and what to change.

    Args:
        summary: `diagnosis.RunSummary`.
        stopped: True if training was ended because of the events.

    Returns:
        Text of a few lines: what happened, a table of the kernels, what it is, why, and
        what to change. A healthy run gets two lines.
    """
    found = symptoms(summary)
    why = causes(summary, found)
    lines = ["training was stopped by an explosion."] if stopped else []
    lines += _what_happened(summary)
    if found:
        lines += _table(summary)
    lines += [f"what it is: {f.kind}: {f.words}." for f in found[:1]]
    lines += [f"and: {f.kind}: {f.words}." for f in found[1:]]
    lines += [f"why: {f.kind}: {f.words}." for f in why]
    advice = [f.advice for f in [*why, *found] if f.advice]
    limit = clip(summary)
    of_size = {f.kind for f in why} & {"rate", "inputs", "targets"}
    if of_size and limit is not None and not any("clipnorm" in a for a in advice):
        advice.append(
            "If you clip: 90% of the healthy steps stay below "
            f"global_clipnorm={limit:.2g}."
        )
    lines += [f"what to change: {a}" for a in advice[:1]]
    lines += [f"  then: {a}" for a in advice[1:]]
    return "\n".join(lines)


def _what_happened(summary):
    if not summary.tripped:
        lines = [f"no explosion in {summary.steps} steps."]
    else:
        kinds = ", ".join(f"{k['count']} x {n}" for n, k in _most(summary.kinds))
        actions = ", ".join(f"{count} x {n}" for n, count in _most(summary.actions))
        lines = [
            f"steps that tripped: {summary.tripped} of {summary.steps} ({kinds}); "
            f"what was done: {actions}.",
            f"first: {summary.first_event['message']}.",
        ]
    held = summary.outcomes["held"]
    if held:
        lines.append(f"updates cut down to the trust region: {held}.")
    first, last = summary.rates
    if last < first:
        lines.append(f"learning rate: {first:.3g} at first, {last:.3g} now.")
    numbers = []
    if summary.early:
        early, recent = summary.losses()
        numbers.append(f"loss: {early:.3g} in the first steps, {recent:.3g} now")
    half, most = summary.quantile(0.5), summary.quantile(0.9)
    if half is not None:
        numbers.append(
            f"gradient norm of healthy steps: half below {half:.2g}, 90% below "
            f"{most:.2g}"
        )
    return lines + ([f"{'; '.join(numbers)}."] if numbers else [])


def _most(counts):
    def count(item):
        return item[1]["count"] if isinstance(item[1], dict) else item[1]

    return sorted(counts.items(), key=count, reverse=True)


def _table(summary):
    shapes = summary.model.get("shapes", {})
    rows = [
        (name, numbers)
        for name, numbers in summary.variables.items()
        if len(shapes.get(name, (0, 0))) >= 2 and "norm_first" in numbers
    ]
    if not rows:
        return []
    left_out = len(rows) - MAX_LINES
    if left_out > 0:
        rows = rows[: MAX_LINES // 2] + rows[-MAX_LINES // 2 :]
    width = max(len(name) for name, _ in rows)
    lines = ["  ".join([" " * width, *COLUMNS])]
    for name, numbers in rows:
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
        middle = len(lines) // 2 + 1
        lines.insert(middle, f"... {left_out} more kernels between them")
    return lines


def _number(value):
    return "-" if value is None or not math.isfinite(value) else f"{value:.2g}"


def _share(value):
    return "-" if value is None else f"{value:.0%}"
