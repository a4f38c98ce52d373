"""The command `gradwatch`, also `python -m keras_gradwatch`.

It reads files, and needs neither Keras nor a backend.
"""

import argparse
import json
import os
import socket
import sys

from keras_gradwatch.records.files import read_json, read_lines
from keras_gradwatch.records.find import find, find_all
from keras_gradwatch.records.incidents import (
    EVENT_LOG,
    EVENTS,
    FOLDER,
    REPORT,
    REPORT_DATA,
    RUN,
    begins,
    first_step,
)
from keras_gradwatch.version import __version__

# Lines that are printed of one incident at most.
MAX_LINES = 5
LOGDIR = "the run's `log_dir` or `state_dir`, or a directory with several of them"
WORDS = {"ended": "ended", "stopped": "was stopped by an explosion"}


def main(arguments=None):
    """Runs the command with `arguments`, or with those of the process.

    Returns the exit status: 0; 1 if a run exploded and was not protected; 2 if there is
    nothing to report, or for wrong arguments.
    """
    parser = argparse.ArgumentParser(prog="gradwatch")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    report = commands.add_parser(
        "report",
        help="print what happened in a run",
        description="Print the report of a run, and list the files of its incidents. "
        "The exit status is 1 if a run exploded and was not protected.",
    )
    report.add_argument("logdir", metavar="LOGDIR", help=LOGDIR)
    report.add_argument("--json", action="store_true", help="print the data as JSON")
    page = commands.add_parser(
        "html",
        help="write the dashboard of a run to one file",
        description="Write the verdict, timeline, heatmap and layers of a run, or of "
        "several side by side, to one HTML file.",
    )
    page.add_argument("logdirs", nargs="+", metavar="LOGDIR", help=LOGDIR)
    page.add_argument(
        "--out", default="report.html", help="output file (default: %(default)s)"
    )
    compare = commands.add_parser(
        "compare",
        help="compare runs in a table and a dashboard",
        description="Print a table of several runs, and write a dashboard that shows "
        "them side by side. Percentages refer to the steps in the records.",
    )
    compare.add_argument("logdirs", nargs="+", metavar="RUN", help=LOGDIR)
    compare.add_argument(
        "--out", default="compare.html", help="output file (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "report":
            return _print_report(options)
        return _write_page(options)
    except (ImportError, OSError, ValueError) as error:
        print(f"gradwatch {options.command}: {error}", file=sys.stderr)
        return 2


def _print_report(options):
    runs = find_all(options.logdir)
    if options.json:
        print(json.dumps({run: data(run) for run in runs}, indent=1))
    elif len(runs) == 1:
        print(text(runs[0]))
    else:
        print("\n".join(f"{run}: {_summary(run)}" for run in runs))
    found = map(data, runs)
    return int(any(d.get("exploded") and not d.get("protected") for d in found))


def _write_page(options):
    # NumPy and Bokeh are loaded only where they are needed.
    from keras_gradwatch.reports import pages

    runs, problems = pages.write(options.logdirs, options.out)
    for problem in problems:
        print(f"not shown: {problem}", file=sys.stderr)
    if options.command == "compare":
        print(pages.table(runs))
    print(f"wrote the page to {options.out}")
    return 0


def text(logdir):
    """Returns what is known of the run in `logdir`; raises ValueError without one."""
    directory = find(logdir)
    events = read_lines(
        os.path.join(directory, EVENT_LOG),
        lambda event: {name: event[name] for name in ("step", "message")},
    )
    folders = read_folders(os.path.join(directory, FOLDER))
    parts = [part for part in (_status(directory), _report(directory)) if part]
    found = group(events, folders)
    if found:
        parts.append(f"incidents: {len(found)}")
    parts += [_incident(*incident, folders) for incident in found]
    return "\n".join(parts)


def data(directory):
    """Returns the report of a run as a dict, with its `status`."""
    found = read_json(os.path.join(directory, REPORT_DATA))
    return {**found, "status": _status(directory)}


def _summary(directory):
    verdict = str(data(directory).get("verdict") or "no report yet")
    return verdict.replace("\n", " ")


def read_folders(directory):
    """Returns a dict of first step to path of the incidents in a directory."""
    names = os.listdir(directory) if os.path.isdir(directory) else []
    found = {first_step(name): os.path.join(directory, name) for name in sorted(names)}
    return {step: path for step, path in found.items() if step is not None}


def group(events, folders):
    """Groups events into incidents; returns sorted pairs `(first step, events)`."""
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
            path = os.path.join(folder, EVENTS)
            found[step] = read_json(path).get("events", [])
    return sorted(found.items())


def _status(directory):
    """Returns a line on whether the run has ended; empty if unknown."""
    run = read_json(os.path.join(directory, RUN))
    if not {"status", "step", "host", "process"} <= run.keys():
        return ""
    status, step, host, process = (
        run[name] for name in ("status", "step", "host", "process")
    )
    if status in WORDS:
        return f"the run {WORDS[status]} at step {step}."
    where = f"process {process} on {host}"
    if host != socket.gethostname():
        return f"the run is still running in {where}, or it was interrupted."
    if _exists(process):
        return f"the run is running in {where}."
    return f"the run was interrupted: {where} has ended."


def _exists(process):
    """Returns whether a process of this host exists; True if unknown."""
    if os.name != "posix":
        return True
    try:
        os.kill(int(process), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _report(directory):
    path = os.path.join(directory, REPORT)
    if os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\n")
    return f"there is no {REPORT} in {directory!r} yet; the events so far:"


def _incident(step, events, folders):
    lines = [f"step {step}: no files were saved"]
    if step in folders:
        files = ", ".join(sorted(os.listdir(folders[step])))
        lines = [f"step {step}: {folders[step]}: {files}"]
    lines += [f"  {event['message']}" for event in events[:MAX_LINES]]
    if len(events) > MAX_LINES:
        lines.append(f"  further events: {len(events) - MAX_LINES}")
    return "\n".join(lines)
