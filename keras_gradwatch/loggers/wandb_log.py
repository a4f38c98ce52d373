"""Weights & Biases."""

import copy
import io
from typing import Any

from PIL import Image

from keras_gradwatch.loggers.base import Logger, NoRunError, client, settings


class WandbLog(Logger):
    """Logs to a run of Weights & Biases.

    | in the run | what |
    |---|---|
    | history | the scalars, with TensorBoard's tags, over `gradwatch/step` |
    | alerts | events; at most one per minute of each kind |
    | `gradwatch/heatmap` | the heatmap, as an image |
    | artifact `gradwatch-<run id>` | `report.md`, `report.txt` and `heatmap.png` |

    Requires wandb: `pip install wandb`.

    Args:
        run: Run to log to, which is left open. If `None`, the active run. Defaults to
            `None`.
        start: Arguments of `wandb.init`, a dict: each `fit` starts its own run, and
            finishes it. If `None`, no run is started. Defaults to `None`.

    Raises:
        ImportError: If wandb is not installed.
        ValueError: If an argument is invalid, or, when `fit` begins, if
            there is no run.

    Example:

    ```
    log = keras_gradwatch.loggers.WandbLog(start={"project": "digits"})
    model.fit(x, y, callbacks=[callbacks.GradWatch(log=log)])
    ```
    """

    def __init__(self, run: Any = None, start: dict | None = None) -> None:
        wandb = client("wandb", self)
        if run is not None and not isinstance(run, wandb.Run):
            raise ValueError(
                "WandbLog: `run` must be what `wandb.init` returns, or None for the "
                f"active run. Received: run={run!r}"
            )
        self.start = settings(self, "run", run, start)
        self.run = run
        self._open = None

    def on_begin(self, step):
        wandb = client("wandb", self)
        self.on_close()  # the run of a `fit` that was interrupted
        if self.start is not None:
            self._open = wandb.init(**self.start)
        else:
            self._open = self.run or wandb.run
        if self._open is None:
            raise NoRunError(
                "WandbLog: there is no active run. Call `wandb.init` before `fit`, "
                "give a `run`, or the arguments of `wandb.init` as `start`. "
                "Received: run=None and start=None"
            )
        # An axis of its own: others may log to the run at other steps.
        self._open.define_metric("gradwatch/step", hidden=True)
        self._open.define_metric("gradwatch*", step_metric="gradwatch/step")

    def on_log(self, step, values):
        self._open.log({"gradwatch/step": step, **values})

    def on_event(self, event):
        title = f"gradwatch: {event.kind}"[:63]  # which is all that wandb takes
        level = client("wandb", self).AlertLevel.WARN
        self._open.alert(title, event.message, level)

    def on_end(self, report, heatmap):
        wandb = client("wandb", self)
        artifact = wandb.Artifact(f"gradwatch-{self._open.id}", "gradwatch")
        for name, text in (("md", report.to_markdown()), ("txt", str(report))):
            with artifact.new_file(f"report.{name}", encoding="utf-8") as file:
                file.write(text)
        if heatmap is not None:
            self._open.log({"gradwatch/heatmap": wandb.Image(heatmap)})
            png = io.BytesIO()
            Image.fromarray(heatmap).save(png, "PNG")
            with artifact.new_file("heatmap.png", "wb") as file:
                file.write(png.getvalue())
        self._open.log_artifact(artifact)

    def on_close(self):
        run, self._open = self._open, None
        if run is not None and self.start is not None:
            run.finish()

    def __getstate__(self):
        """What a pickle keeps: a run belongs to its process."""
        return {**vars(self), "run": None, "_open": None}

    def __deepcopy__(self, memo):
        new = copy.copy(self)
        new.run, new.start = self.run, copy.deepcopy(self.start, memo)
        return new
