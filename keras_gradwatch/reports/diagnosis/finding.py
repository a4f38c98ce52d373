"""A finding of the diagnosis."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One symptom or cause that was found in a run.

    Attributes:
        kind: A short name, the same for every run that has it.
        words: What was measured, a sentence without a full stop.
        advice: What to change, sentences; empty if the causes say it.
        headline: The finding in a few words, for the first line of the report.
    """

    kind: str
    words: str
    advice: str = ""
    headline: str = ""
