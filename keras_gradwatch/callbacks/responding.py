"""The base of the callbacks that follow a detector, and print its events."""

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.detectors import LossSpike, NonFinite, ZScore
from keras_gradwatch.detectors.base import Detector, flatten
from keras_gradwatch.records.events import Event
from keras_gradwatch.reports.diagnosis import RunSummary


class RespondingCallback(WatchingCallback):
    """Base of the callbacks that act on what a detector finds; keeps its `events`."""

    # Detectors whose events are printed beside those of `detectors`.
    reported: tuple[Detector, ...] = ()

    def __init__(self, detector: Detector | None = None, verbose: int = 1) -> None:
        super().__init__()
        self.detectors = tuple(flatten(detector)) or (
            NonFinite(),
            ZScore(),
            LossSpike(),
        )
        self.verbose = verbose
        self.events: list[Event] = []
        self.summary = RunSummary()

    def on_first_batch(self):
        """Adds the earlier events of a run that this `fit` continues."""
        keeper, recorder = self._gradwatch.keeper, self._gradwatch.recorder
        if keeper.resumed is None:
            return
        step, events = keeper.resumed
        kinds = {d.kind for d in self._followed()}
        before = [e for e in events if e.kind in kinds]
        self.events = before + self.events
        self.summary.add(before)
        self.summary.steps = step
        if self.verbose:
            recorder.say_once(
                f"resuming at step {step} with the saved baselines and {len(events)} "
                f"earlier event{'s' * (len(events) != 1)}"
            )

    def on_rows(self, rows, events):
        """Keeps and prints the events of this response's detectors; may end `fit`."""
        mine = rows.events(self._followed())
        self.events.extend(mine)
        self.summarize(rows, mine)
        if self.verbose:
            resting = self._gradwatch.resting(bool(rows.compete.any()))
            if resting is not None:
                self._gradwatch.recorder.say_once(resting)
            self._gradwatch.recorder.tell(mine)
        if self._gradwatch.halted:
            self.model.stop_training = True

    def _followed(self):
        # Steps that are not finite are skipped, whatever detector is followed.
        return (*self.detectors, *self.reported, NonFinite())
