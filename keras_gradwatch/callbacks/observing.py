"""The base of the callbacks that only observe: they run detectors, and report."""

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.controller.plan import ATTENTIVE_STEPS, Request
from keras_gradwatch.controller.responses import Hold
from keras_gradwatch.detectors import (
    Collapse,
    DeadUnits,
    Divergence,
    LossSpike,
    UpdateRatio,
    Vanishing,
    ZScore,
)
from keras_gradwatch.reports.diagnosis import RunSummary

# Fraction of a kernel's norm; the next loss judges an update that changes more.
TRUST_BOUND = 0.5


class ObservingCallback(WatchingCallback):
    """Base of the callbacks that report what `GradWatch()` would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.summary = RunSummary()

    def observing(self, **options):
        """Returns the `Request` of an observer, with further arguments `options`."""
        return Request(
            type(self).__name__,
            detectors=(
                ZScore(),
                LossSpike(),
                Divergence(),
                Collapse(),
                Vanishing(),
                DeadUnits(),
            ),
            responses=(Hold((UpdateRatio(TRUST_BOUND),), acts=False),),
            dense_steps=ATTENTIVE_STEPS,
            **options,
        )

    def on_rows(self, rows, events):
        """Adds newly drained rows to the summary."""
        self.summarize(rows, events)
