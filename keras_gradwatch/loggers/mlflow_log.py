"""A logger for runs of MLflow."""

import re
import time

from keras_gradwatch.loggers.base import Logger, NoRunError, client, settings

# What MLflow does not allow in the name of a metric.
FORBIDDEN = re.compile(r"[^\w\-. :/]")
# Metrics that MLflow takes in one call, and seconds between two calls: each takes 10 to
# 100 ms.
BATCH, PAUSE = 1000, 1.0


class MLflowLog(Logger):
    """Logs to a run of MLflow.

    | in the run | what |
    |---|---|
    | metrics | the scalars, with TensorBoard's tags |
    | tag `gradwatch.<kind>` | the first event of each kind |
    | tag `gradwatch.events` | number of events in the last `fit` |
    | artifacts in `gradwatch` | `report.md`, `report.txt` and `heatmap.png` |

    Metrics are sent once a second. Characters of a layer's name that MLflow does not
    allow are replaced by `_`.

    Requires MLflow: `pip install mlflow`.

    Args:
        run_id: Id of the run to log to, which is left open. If `None`, the active run.
            Defaults to `None`.
        start: Arguments of `mlflow.start_run`, a dict: each `fit` starts its own run,
            and ends it. If `None`, no run is started. Defaults to `None`.

    Raises:
        ImportError: If MLflow is not installed.
        ValueError: If an argument is invalid, or, when `fit` begins, if
            there is no run.

    Example:

    ```
    log = keras_gradwatch.loggers.MLflowLog(start={"run_name": "digits"})
    model.fit(x, y, callbacks=[callbacks.GradWatch(log=log)])
    ```
    """

    def __init__(self, run_id: str | None = None, start: dict | None = None) -> None:
        client("mlflow", self)
        if run_id is not None and not (isinstance(run_id, str) and run_id):
            raise ValueError(
                "MLflowLog: `run_id` must be the id of a run, a str, or None for the "
                f"active run. Received: run_id={run_id!r}"
            )
        self.start = settings(self, "run_id", run_id, start)
        self.run_id = run_id
        self._id: str | None = None
        self._kinds: set[str] = set()
        self._events = 0
        self._unsent: list = []  # what was not sent yet
        self._sent_at = 0.0

    def on_begin(self, step):
        mlflow = client("mlflow", self)
        self.on_close()  # the run of a `fit` that was interrupted
        self._id, self._kinds, self._events = self.run_id, set(), 0
        self._unsent = []
        if self.start is not None:
            self._id = mlflow.start_run(**self.start).info.run_id
        elif self._id is None and mlflow.active_run() is not None:
            self._id = mlflow.active_run().info.run_id
        if self._id is None:
            raise NoRunError(
                "MLflowLog: there is no active run. Call `mlflow.start_run` before "
                "`fit`, give a `run_id`, or the arguments of `mlflow.start_run` as "
                "`start`. Received: run_id=None and start=None"
            )

    def on_log(self, step, values):
        now = time.time()
        self._unsent += [
            (FORBIDDEN.sub("_", tag), value, int(1000 * now), step)
            for tag, value in values.items()
        ]
        if now - self._sent_at > PAUSE:
            self._send()

    def _send(self):
        mlflow = client("mlflow", self)
        metrics = [mlflow.entities.Metric(*metric) for metric in self._unsent]
        for begin in range(0, len(metrics), BATCH):
            mlflow.MlflowClient().log_batch(self._id, metrics[begin : begin + BATCH])
        self._unsent, self._sent_at = [], time.time()

    def on_event(self, event):
        self._events += 1
        if event.kind not in self._kinds:
            self._kinds.add(event.kind)
            self._tag(f"gradwatch.{event.kind}", event.message)

    def _tag(self, name, value):
        name = FORBIDDEN.sub("_", name)
        client("mlflow", self).MlflowClient().set_tag(self._id, name, value)

    def on_end(self, report, heatmap):
        mlflow = client("mlflow", self)
        self._send()
        self._tag("gradwatch.events", self._events)
        texts = mlflow.MlflowClient()
        texts.log_text(self._id, report.to_markdown(), "gradwatch/report.md")
        texts.log_text(self._id, str(report), "gradwatch/report.txt")
        if heatmap is not None:
            texts.log_image(self._id, heatmap, "gradwatch/heatmap.png")

    def on_close(self):
        run_id, self._id = self._id, None
        if run_id is None or self.start is None:
            return
        mlflow = client("mlflow", self)
        active = mlflow.active_run()
        if active is not None and active.info.run_id == run_id:
            mlflow.end_run()
        else:  # `end_run` would end another run
            mlflow.MlflowClient().set_terminated(run_id)

    def __getstate__(self):
        """What a pickle or a copy keeps: the run is ended by whoever started it."""
        return {**vars(self), "_id": None, "_unsent": []}
