"""One thing that was found in a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: A word or two, the same for every run that has it.
        words: What was measured, a sentence without a full stop.
        advice: What to change, sentences; empty if the causes say it.
        headline: The same in a few words, for the first line of the report.
    """

    kind: str
    words: str
    advice: str = ""
    headline: str = ""
