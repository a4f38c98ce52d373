"""The command `python -m keras_gradwatch report LOGDIR`: it reads files, no more."""

import argparse
import json
import os
import sys

from keras_gradwatch.records.incidents import EVENTS, FOLDER, REPORT, begins, first_step

LOG = "events.jsonl"
# Lines that are printed of one incident at most.
MAX_LINES = 5


def main(arguments=None):
    """Runs the command.

    Args:
        arguments: List of str; None: those of the process.

    Returns:
        The exit status: 0, or 2 where there is nothing to report. Wrong arguments exit
        with 2, too.
    """
    parser = argparse.ArgumentParser(prog="python -m keras_gradwatch")
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="print what happened in a run",
        description="Print the report of a run, and what is on disk of its incidents.",
    )
    report.add_argument(
        "logdir", metavar="LOGDIR", help="the run's `log_dir` or `state_dir`"
    )
    options = parser.parse_args(arguments)
    try:
        print(text(options.logdir))
    except (OSError, ValueError) as error:
        print(f"{report.prog}: {error}", file=sys.stderr)
        return 2
    return 0


def text(logdir):
    """What is known of the run in a directory, a text.

    Args:
        logdir: What `GradWatch` was given as `log_dir` or `state_dir`.

    Raises:
        ValueError: If no run is found there.
    """
    directory = find(logdir)
    events = read_events(os.path.join(directory, LOG))
    folders = read_folders(os.path.join(directory, FOLDER))
    parts = [_report(directory)]
    found = group(events, folders)
    if found:
        parts.append(f"incidents: {len(found)}")
    parts += [_incident(*incident, folders) for incident in found]
    return "\n".join(parts)


def find(logdir):
    """The directory in which `GradWatch` has left its files.

    Args:
        logdir: That directory, or the one that it is in.

    Raises:
        ValueError: If there is none.
    """
    if not os.path.isdir(logdir):
        raise ValueError(f"there is no directory {logdir!r}")
    places = [os.path.join(logdir, "gradwatch"), logdir]
    for place in places:
        if any(os.path.exists(os.path.join(place, f)) for f in (REPORT, LOG)):
            return place
    raise ValueError(
        f"there is no {REPORT} and no {LOG} in {places[0]!r} or in {places[1]!r}; "
        "`callbacks.GradWatch` writes them, with a `log_dir` or a `state_dir`"
    )


def read_events(path):
    """The events in a file, a list of dicts; an unfinished line is none."""
    events = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for line in file:
                try:
                    event = json.loads(line)
                    events.append({k: event[k] for k in ("step", "message")})
                except (ValueError, TypeError, KeyError):
                    continue
    return events


def read_folders(directory):
    """The directories of incidents: a dict of their first step to their path."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = {first_step(name): os.path.join(directory, name) for name in sorted(names)}
    return {step: path for step, path in found.items() if step is not None}


def group(events, folders):
    """Puts events together that belong to one incident.

    Args:
        events: List of dicts with a `step`, in order.
        folders: Dict of the first steps of those that have a directory to its path.

    Returns:
        List of pairs `(first step, its events)`.
    """
    found, last = {}, None
    for event in events:
        step = event["step"]
        if begins(step, last) or (step in folders and step != last):
            found[step] = []
            first = step
        found[first].append(event)
        last = step
    for step, folder in folders.items():
        if step not in found:
            found[step] = read_incident(os.path.join(folder, EVENTS))
    return sorted(found.items())


def read_incident(path):
    """The events in an incident's own file; none where it cannot be read."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)["events"]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _report(directory):
    path = os.path.join(directory, REPORT)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    return (
        f"no {REPORT} in {directory!r}: the run continues, or its process was killed; "
        "these are its events so far."
    )


def _incident(step, events, folders):
    lines = [f"step {step}: nothing more is on disk"]
    if step in folders:
        files = ", ".join(sorted(os.listdir(folders[step])))
        lines = [f"step {step}: {folders[step]}: {files}"]
    lines += [f"  {event['message']}" for event in events[:MAX_LINES]]
    if len(events) > MAX_LINES:
        lines.append(f"  and {len(events) - MAX_LINES} more events")
    return "\n".join(lines)
