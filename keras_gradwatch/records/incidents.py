"""Which events belong together, and what an incident's directory is called."""

# An incident ends with the last of its events; one that comes more than so many steps
# later begins the next one.
QUIET = 50

# Below the directory in which the state of a run is kept.
FOLDER = "events"
REPORT, REPORT_DATA = "report.txt", "report.json"
RUN = "run.json"
EVENT_LOG = "events.jsonl"
RECORD = "record.gwr"

ROWS, EVENTS, WEIGHTS, BATCH = "rows.csv", "event.json", "weights.json", "batch.npz"
FILES = (EVENTS, ROWS, WEIGHTS, BATCH)


def begins(step, last):
    """Returns whether an event at `step` begins a new incident.

    `last` is the step of the previous event, or None.
    """
    return last is None or step - last > QUIET


def directory_name(step):
    """Returns the name of the directory of the incident that began in `step`."""
    return f"step_{step:07d}"


def first_step(name):
    """Returns the step in a name from `directory_name`; None for another name."""
    step = name.removeprefix("step_")
    named = step.isdecimal() and name == directory_name(int(step))
    return int(step) if named else None
