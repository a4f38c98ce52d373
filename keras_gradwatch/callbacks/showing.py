"""The base of the callbacks whose run can be shown as a page."""

import os

from keras_gradwatch.callbacks.base import WatchingCallback
from keras_gradwatch.dashboard.page import Page, page
from keras_gradwatch.records.load import load
from keras_gradwatch.reports.report import Report


class Showing(WatchingCallback):
    """Base of the callbacks that have a page of their run."""

    # Directory of the run's record, or None.
    record_dir: str | None = None
    forensics = None

    def save_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the dashboard of the run so far to one file, which any browser opens.

        It shows the verdict and the fix, a timeline with the events, a heatmap
        of layers × steps, and the statistics of each layer. It needs
        Bokeh: `pip install bokeh`.

        Args:
            path: File to write; an existing one is replaced.

        Raises:
            ImportError: If Bokeh is not installed.
            OSError: If the file cannot be written.
            ValueError: If nothing has been watched yet.
        """
        text = self.show()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def show(self) -> Page:
        """The page of the run so far; a notebook displays it as the result of a cell.

        Raises:
            ImportError: If Bokeh is not installed.
            ValueError: If nothing has been watched yet.
        """
        report = self.report()
        if not isinstance(report, Report):
            raise ValueError(report)
        run = self._recorded()
        run.report = report.to_dict()
        return page([run])

    def _recorded(self):
        """Returns the run as it was written to `record_dir`."""
        if self.forensics is not None:
            self.forensics.finish()
        return load(self.record_dir)

    def _remembered(self, history):
        """Returns the run as far as `history` has it."""
        return history.to_run(self.model.name if self.model else "run")
