"""The report of a run: verdict, fix, diagnosis, cause, and a table of its layers."""

import html

from keras_gradwatch.reports.diagnosis import causes, symptoms
from keras_gradwatch.reports.diagnosis.causes import clip
from keras_gradwatch.reports.table import table

# Pieces of advice, at most.
MAX_FIXES = 3
# What the lines of the text begin with, before the table.
LABELS = ("Fix", "Also try", "Diagnosis", "Cause", "First event", "Numbers")
# Symptoms of a run that has exploded.
EXPLODED = {
    "explosion",
    "non-finite at the start",
    "sudden non-finite loss",
    "undefined derivative",
}
# Optimizers whose updates are proportional to the gradient, so that a clip limits them.
SCALED_BY_NORM = ("SGD",)
# What was done about events, in words; "s" is added where there are several.
DONE = {
    "skipped": "{} update{s} skipped",
    "reverted": "{} update{s} reverted",
    "clipped": "gradients clipped in {} step{s} with an event",
    "rate reduced": "{} cut{s} of the learning rate",
    "rate restored": "{} cut{s} of the learning rate undone",
    "rewound": "{} rollback{s}",
    "stopped": "training stopped",
}


class Report(str):
    """What happened in a run, why, and what to change; a `str` with attributes.

    Attributes:
        verdict: The first lines: what happened, and what was done about it.
        symptoms: List of `Finding`, the problems of the run, the most severe first.
        causes: List of `Finding`, the most certain first.
        fixes: List of str, what to change; at most three.
        exploded: Whether the run has exploded.
        protected: Whether anything was done about it.
        clip: Suggested limit for the global norm; None if unknown. Set by `diagnose`.
        rate: A good learning rate; None if unknown. Set by `diagnose`.
        rate_curve: Dict of arrays of the range test, or None. Set by `diagnose`.
    """

    clip: float | None = None
    rate: float | None = None
    rate_curve: dict | None = None

    def __new__(cls, text, verdict="", symptoms=(), causes=(), fixes=(), summary=None):
        report = super().__new__(cls, text)
        report.verdict = verdict
        report.symptoms, report.causes = list(symptoms), list(causes)
        report.fixes, report.summary = list(fixes), summary
        report.exploded = any(f.kind in EXPLODED for f in report.symptoms)
        report.protected = summary is not None and bool(_done(summary))
        return report

    def to_dict(self):
        """Returns verdict, findings, fixes and numbers as plain data for JSON."""
        return {
            "verdict": self.verdict,
            "exploded": self.exploded,
            "protected": self.protected,
            "symptoms": [{"kind": f.kind, "words": f.words} for f in self.symptoms],
            "causes": [{"kind": f.kind, "words": f.words} for f in self.causes],
            "fixes": self.fixes,
            "summary": None if self.summary is None else self.summary.to_dict(),
        }

    def to_markdown(self):
        """The text as Markdown: a headline, a list, and the table."""
        headline, *done = self.verdict.split("\n")
        items, table = [], []
        for line in self.split("\n")[1 + len(done) :]:
            label, _, words = line.partition(": ")
            if label.partition(" (")[0] in LABELS:
                items.append(f"- **{label}**: {words}")
            else:
                table.append(line)
        blocks = [f"### {headline}", *done, "\n".join(items)]
        if table:
            blocks.append("\n".join(["```", *table, "```"]))
        return "\n\n".join(block for block in blocks if block)

    def _repr_html_(self):
        first, *rest = html.escape(self).split("\n", 1)
        style = "white-space: pre-wrap; font-family: monospace"
        return f'<div style="{style}"><b>{first}</b>\n{"".join(rest)}</div>'


def explain(summary, stopped=False):
    """Explains what happened in a run, why, and what to change, as a `Report`.

    It lists the most affected kernels first; that of a healthy run only has verdict and
    numbers. `stopped` is True if the events ended training.
    """
    found = symptoms(summary)
    why = causes(summary, found)
    fixes = _fixes(summary, found, why)
    verdict = _verdict(summary, found, why, stopped)
    lines = [*verdict]
    lines += [f"Fix: {fix}" for fix in fixes[:1]]
    lines += [f"Also try: {fix}" for fix in fixes[1:]]
    lines += [f"Diagnosis ({f.kind}): {f.words}." for f in found]
    lines += [f"Cause ({f.kind}): {f.words}." for f in why]
    if summary.first_event:
        lines.append(f"First event: {summary.first_event['message']}.")
    lines += _numbers(summary)
    if found:
        lines += table(summary, found)
    text = "\n".join(lines)
    return Report(text, "\n".join(verdict), found, why, fixes, summary)


def _verdict(summary, found, why, stopped):
    """Returns the lines that say what happened, and what was done."""
    if found:
        words = found[0].headline
        words += f": {why[0].headline}" if why and why[0].headline else ""
    elif summary.tripped:
        kinds = ", ".join(f"{k['count']}× {n}" for n, k in _most(summary.kinds))
        words = f"{summary.tripped} of {summary.steps} steps had an event ({kinds})"
    elif summary.error:
        words = f"Training ended with an error after {summary.steps} steps"
    else:
        words = f"No explosion in {summary.steps} steps"
    lines = [f"{words[:1].upper()}{words[1:]}."]
    done = _done(summary)
    if stopped and "training stopped" not in done:
        done.append("training stopped")
    first, last = summary.rates
    if last < first and done:
        done.append(f"learning rate {first:.3g} -> {last:.3g}")
    if done:
        lines.append(f"Protected: {', '.join(done)}.")
    elif summary.tripped:
        lines.append("Not protected: the events were only reported.")
    if summary.error:
        lines.append(f"Error: {summary.error}")
    return lines


def _done(summary):
    """Returns what was done about the events of a run, a list of clauses."""
    counts = _most(summary.actions)
    held = summary.outcomes["held"]
    done = [
        DONE[action].format(count, s="s" if count > 1 else "")
        for action, count in counts
        if action in DONE and not (held and action == "clipped")
    ]
    if held:
        share = summary.held_back / held
        done.append(
            f"{held} of {summary.steps} updates limited by the trust region (to "
            f"{1 - share:.0%} of their size on average)"
        )
    return done


def _fixes(summary, found, why):
    """Returns what to change, a list of sentences."""
    fixes = [f.advice for f in [*why, *found] if f.advice]
    limit = clip(summary)
    of_size = {f.kind for f in why} & {"rate", "inputs", "targets"}
    scales = summary.model.get("optimizer") in SCALED_BY_NORM
    if (
        of_size
        and scales
        and limit is not None
        and not any("clipnorm" in fix for fix in fixes)
    ):
        fixes.append(
            f"Clip with global_clipnorm={limit:.2g}: 90% of the healthy steps stay "
            "below it."
        )
    return fixes[:MAX_FIXES]


def _numbers(summary):
    numbers = []
    if summary.early:
        early, recent = summary.losses()
        numbers.append(f"loss {early:.3g} in the first steps, {recent:.3g} now")
    half, most = summary.quantile(0.5), summary.quantile(0.9)
    if half is not None:
        numbers.append(
            f"gradient norm of the healthy steps: median {half:.2g}, p90 {most:.2g}"
        )
    return [f"Numbers: {'; '.join(numbers)}."] if numbers else []


def _most(counts):
    def count(item):
        return item[1]["count"] if isinstance(item[1], dict) else item[1]

    return sorted(counts.items(), key=count, reverse=True)
