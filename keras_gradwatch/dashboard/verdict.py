"""What happened, what was done and what to change, as HTML."""

import html

# Events whose message is shown with the verdict.
MAX_EVENTS = 3


def verdict(run):
    """The verdict of a `Run`, its fixes and its first events, as HTML."""
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
        shown = "".join(
            f"<li>{html.escape(event.message)}</li>" for event in run.events[:MAX_EVENTS]
        )
        title = f"First of {len(run.events)} events" if run.events[1:] else "Event"
        lines.append(f"<details open><summary>{title}</summary><ul>{shown}</ul></details>")
    lines.append(f'<p class="numbers">{html.escape(_numbers(run))}</p>')
    return f'<div class="verdict {kind}">{"".join(lines)}</div>'


def _numbers(run):
    if not len(run.steps):
        return "no steps recorded yet"
    return (
        f"steps {run.steps[0]} to {run.steps[-1]}, {len(run.variables)} variables, "
        f"{len(run.events)} events"
    )
