"""What happened, what was done and what to change, as HTML."""

import html

# Events in the list that unfolds.
MAX_EVENTS = 100


def verdict(run):
    """Returns the verdict of a `Run`, its fixes and its first events, as HTML."""
    report = run.report if isinstance(run.report, dict) else {}
    words = str(report.get("verdict") or "No report yet.")
    exploded, protected = report.get("exploded"), report.get("protected")
    kind = "bad" if exploded and not protected else "warn" if exploded else "good"
    if not report or (kind == "good" and run.events):
        kind = "plain"
    first, *rest = words.splitlines()
    lines = [f"<h2>{html.escape(run.name)}</h2>", f"<p><b>{html.escape(first)}</b></p>"]
    lines += [f"<p>{html.escape(line)}</p>" for line in rest]
    for i, fix in enumerate(report.get("fixes") or ()):
        word = "Also try" if i else "Fix"
        lines.append(f"<p><b>{word}:</b> {html.escape(str(fix))}</p>")
    if run.events:
        first = html.escape(run.events[0].message)
        lines.append(f"<p><b>First event:</b> {first}</p>")
    if run.events[1:]:
        items = [f"<li>{html.escape(e.message)}</li>" for e in run.events[:MAX_EVENTS]]
        more = len(run.events) - MAX_EVENTS
        items += [f"<li>and {more} more</li>"] if more > 0 else []
        title = f"<summary>all {len(run.events)} events</summary>"
        lines.append(f"<details>{title}<ul>{''.join(items)}</ul></details>")
    lines.append(f'<p class="numbers">{html.escape(_numbers(run))}</p>')
    return f'<div class="verdict {kind}">{"".join(lines)}</div>'


def _numbers(run):
    if not len(run.steps):
        return "no steps recorded yet"
    return (
        f"steps {run.steps[0]} to {run.steps[-1]}, {len(run.variables)} variables, "
        f"{len(run.events)} event{'s' * (len(run.events) != 1)}"
    )
