"""What the responses share: a detector to follow, and events that are printed."""

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.detectors import LossSpike, NonFinite, ZScore
from keras_gradwatch.detectors.base import Detector, flatten
from keras_gradwatch.records.events import Event
from keras_gradwatch.reports.diagnosis import RunSummary


class Response(WatchingCallback):
    """Base of the callbacks that act on what a detector finds.

    Args:
        detector: `detectors.Detector` to follow. If `None`, `NonFinite() | ZScore() |
            LossSpike()`: non-finite gradients or loss, a spike of the gradient norm, a
            spike of the loss. Defaults to `None`.
        verbose: `0` prints nothing; `1` prints one line for each of the first
            three events of each kind and action, and the number of all others when
            `fit` ends. Defaults to `1`.

    Attributes:
        events: List of the `Event`s of this response's detectors.
        summary: `RunSummary` for the report.
    """

    # Detectors whose events are printed beside those of `detectors`.
    told: tuple[Detector, ...] = ()

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

    def set_model(self, model):
        """Watches `model`; the events of an earlier model are dropped."""
        if self.model is not None and self.model is not model:
            self.events, self.summary = [], RunSummary()
        super().set_model(model)

    def on_first_batch(self):
        """Adds the events of the process that this `fit` continues."""
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
                f"resuming at step {step}, with baselines and {len(events)} earlier "
                f"event{'s' * (len(events) != 1)}"
            )

    def on_rows(self, rows, events):
        """Keeps and prints the events of this response's detectors."""
        del events
        mine = rows.events(self._followed())
        self.events.extend(mine)
        self.summarize(rows, mine)
        if self.verbose:
            resting = self._gradwatch.resting(bool(rows.compete.any()))
            if resting is not None:
                self._gradwatch.recorder.say_once(resting)
            self._gradwatch.recorder.tell(mine)

    def _followed(self):
        # Steps that are not finite are skipped, whatever detector is followed.
        return (*self.detectors, *self.told, NonFinite())
