"""Puts `dashboard_example.html`, the page of two runs, into the site.

The runs are in `docs/runs`: `record.gwr` of `python examples/quickstart.py`.
"""

import pathlib

from keras_gradwatch.reports import pages

RUNS = pathlib.Path(__file__).parent / "runs"


def on_post_build(config):
    """Called by MkDocs when all pages are written."""
    out = pathlib.Path(config["site_dir"]) / "dashboard_example.html"
    pages.write([RUNS / "adam-stock", RUNS / "adam"], out)
