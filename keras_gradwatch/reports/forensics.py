"""The files that are written for each incident.

Below the directory in which a run's state is kept:

| file | content |
|---|---|
| `report.txt`, `report.json` | the report, as text and as data |
| `record.gwr` | the record of the run, which `keras_gradwatch.load` reads |
| `run.json` | whether the run has ended, and the process that it runs in |
| `events/step_0000123/event.json` | the events of the incident that began in step 123 |
| `events/step_0000123/rows.csv` | what was recorded in the steps around it |
| `events/step_0000123/weights.json` | fingerprint of the weights soon after it |
| `events/step_0000123/batch.npz` | the batch of step 123, where that was asked for |
"""

import atexit
import dataclasses
import hashlib
import json
import os
import socket
import weakref
import zipfile

import numpy as np

from keras_gradwatch.backends.batch import nested
from keras_gradwatch.keras_hooks.model_state import updates
from keras_gradwatch.records import files
from keras_gradwatch.records.events import tripped
from keras_gradwatch.records.history import History
from keras_gradwatch.records.incidents import (
    BATCH,
    EVENTS,
    FILES,
    FOLDER,
    REPORT,
    REPORT_DATA,
    ROWS,
    RUN,
    WEIGHTS,
    begins,
    directory_name,
    first_step,
)
from keras_gradwatch.records.record import record_of
from keras_gradwatch.reports.forward_pass import explain_batch
from keras_gradwatch.tensors.processes import is_chief

# Steps before and after the first event of an incident that are in its table.
BEFORE, AFTER = 100, 50
# Incidents of one `fit`, and events of one incident, that are written.
MAX_INCIDENTS = 10
MAX_EVENTS = 1000


@dataclasses.dataclass
class Incident:
    """An incident that is written.

    Attributes:
        step: The step of its first event.
        events: Its first `MAX_EVENTS` `Event`s.
        batch: Name of the file with the batch, why there is none, or None if not
            requested.
        forward: Result of `explain_batch` for the batch, a dict.
    """

    step: int
    events: list
    batch: str | None = None
    forward: dict = dataclasses.field(default_factory=dict)


_running: weakref.WeakSet = weakref.WeakSet()  # Forensics whose `fit` has not ended


@atexit.register
def _write_rest():
    """Writes the rest of interrupted `fit` calls, which Keras does not report."""
    for forensics in list(_running):
        forensics.finish()


class Forensics:
    """Writes incidents, record and report of one `fit`, when the ring is drained.

    A directory that cannot be written does not stop training; a line warns once.
    `record_dir` is the directory of the record, None for the same one. `forward` is a
    dict of the step of a saved bad batch to its `explain_batch`.
    """

    def __init__(self, directory, monitor, model, save_batch=False, record_dir=None):
        self.directory = os.path.abspath(directory)
        self._monitor, self._model = monitor, model
        self._save_batch = save_batch
        # All that one drain may bring, and what belongs to a table around it.
        steps = BEFORE + AFTER + monitor.plan.capacity
        self._history = History(steps)
        self._last = self._open = None  # the last event's step, the present incident
        self._count = 0
        self.forward = {}
        self._writable = is_chief()
        self._write(remove, self.directory, monitor.step)
        self._status("running")
        self._record = record_of(monitor, record_dir or directory)
        resumed = monitor.keeper.resumed is not None
        self._write(self._record.begin, monitor.step, resumed)
        _running.add(self)

    def add(self, rows, events):
        """Writes newly drained `Rows` and their events."""
        wanted = self._monitor.plan.histogram_freq
        histograms = self._monitor.histograms() if wanted else None
        self._write(self._record.add, rows, events, histograms)
        self._history.append(rows, [])
        before, changed = self._open, []
        for event in tripped(events):
            if begins(event.step, self._last):
                self._open = self._new(event.step)
            self._last = event.step
            if self._open is None or len(self._open.events) == MAX_EVENTS:
                continue
            self._open.events.append(event)
            if self._open not in changed:
                changed.append(self._open)
        # What came soon after the first event is a part of the table, too.
        grown = before is not None and rows.steps[0] <= before.step + AFTER
        if grown and before not in changed:
            changed.append(before)
        for incident in changed:
            self._write(self._put, incident, rows, incident is not before)

    def report(self, report):
        """Writes a `Report`."""
        for name, content in (
            (REPORT, f"{report}\n"),
            (REPORT_DATA, _json(report.to_dict())),
        ):
            path = os.path.join(self.directory, name)
            self._write(files.replace, path, content)
        self._write(self._record.report, report.to_dict())

    def finish(self):
        """Writes what is still in the ring."""
        self._monitor.drain()
        self._write(self._record.flush)

    def end(self, report):
        """Writes the last `Report` of a `fit`, and that the `fit` has ended."""
        _running.discard(self)
        self.report(report)
        self._status("stopped" if self._monitor.halted else "ended")

    def _status(self, status):
        content = {
            "status": status,
            "step": self._monitor.step,
            "host": socket.gethostname(),
            "process": os.getpid(),
        }
        path = os.path.join(self.directory, RUN)
        self._write(files.replace, path, _json(content))

    def _new(self, step):
        self._count += 1
        if self._count <= MAX_INCIDENTS:
            return Incident(step, [])
        if self._writable:
            self._monitor.recorder.say_once(
                f"more than {MAX_INCIDENTS} incidents: further ones are not written to "
                f"{os.path.join(self.directory, FOLDER)!r}"
            )
        return None

    def _put(self, incident, rows, new):
        folder = os.path.join(self.directory, FOLDER, directory_name(incident.step))
        os.makedirs(folder, exist_ok=True)
        begin, end = incident.step - BEFORE, incident.step + AFTER + 1
        self._history.to_csv(os.path.join(folder, ROWS), begin, end)
        if new:
            files.replace(os.path.join(folder, WEIGHTS), _json(self._weights(rows)))
            if self._save_batch:
                self._put_batch(folder, incident)
        events = [dataclasses.asdict(e) for e in incident.events]
        content = {"step": incident.step, "events": events, "batch": incident.batch}
        if incident.forward:
            content["forward_pass"] = incident.forward["words"]
        files.replace(os.path.join(folder, EVENTS), _json(content))

    def _put_batch(self, folder, incident):
        """Writes the batch, and finds out where its forward pass broke."""
        batch, why_not = self._monitor.batches.take(incident.step)
        if batch is None:
            self._monitor.recorder.say_once(
                f"`save_batch`: the batch of step {incident.step} was not saved: "
                f"{why_not}"
            )
            incident.batch = f"not saved: {why_not}"
            return
        incident.batch = BATCH
        save_arrays(os.path.join(folder, BATCH), batch)
        if any(event.kind == "nonfinite" for event in incident.events):
            incident.forward = explain_batch(self._monitor, nested(batch))
            self.forward.setdefault(incident.step, incident.forward)

    def _weights(self, rows):
        rate = rows.scalars["learning_rate"][-1] * rows.scalars["rate_factor"][-1]
        access = self._monitor.store.access
        return {
            "steps": int(rows.steps[-1]) + 1,
            "updates": updates(self._model, access),
            "learning_rate": float(rate),
            "weights": [fingerprint(v, access) for v in self._model.weights],
        }

    def _write(self, write, *arguments):
        if not self._writable:
            return
        try:
            write(*arguments)
        except OSError as error:
            self._writable = False
            self._monitor.recorder.say_once(
                f"incidents are no longer written to {self.directory!r}, but training "
                f"continues: {error}"
            )


def fingerprint(variable, access):
    """Fingerprints the value of a variable; returns a dict.

    It has path, shape and dtype; L2 norm, min and max of the finite values (0, None
    and None if there are none); the number of non-finite values; and the SHA-256 of the
    bytes, in C order. A variable that is spread over several processes only has path,
    shape and dtype.
    """
    known = {
        "path": variable.path,
        "shape": list(variable.shape),
        "dtype": variable.dtype,
    }
    if not access.is_whole(variable):
        return known
    value = access.read(variable)
    numbers = value.astype("float64").ravel()
    finite = numbers[np.isfinite(numbers)]
    # By the largest magnitude, so that no square overflows.
    largest = np.abs(finite).max(initial=0.0)
    norm = largest * np.linalg.norm(finite / largest) if largest else 0.0
    return {
        **known,
        "norm": float(norm),
        "min": float(finite.min()) if len(finite) else None,
        "max": float(finite.max()) if len(finite) else None,
        "nonfinite_count": len(numbers) - len(finite),
        "sha256": hashlib.sha256(value.tobytes()).hexdigest(),
    }


def save_arrays(path, arrays):
    """Writes a dict of arrays to a file that `numpy.load` reads, whatever the names.

    Types that NumPy does not have (bfloat16) become float32, without loss.
    """
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            if array.dtype.kind == "V":
                array = array.astype("float32")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def remove(directory, step):
    """Removes incidents that began in `step` or later; at step 0 also the report."""
    for name in (REPORT, REPORT_DATA):
        if step == 0 and os.path.exists(os.path.join(directory, name)):
            os.remove(os.path.join(directory, name))
    events = os.path.join(directory, FOLDER)
    for name in os.listdir(events) if os.path.isdir(events) else []:
        begun = first_step(name)
        if begun is None or begun < step:
            continue
        folder = os.path.join(events, name)
        for file in FILES:
            if os.path.exists(os.path.join(folder, file)):
                os.remove(os.path.join(folder, file))
        if not os.listdir(folder):
            os.rmdir(folder)


def _json(content):
    return json.dumps(content, indent=1) + "\n"
