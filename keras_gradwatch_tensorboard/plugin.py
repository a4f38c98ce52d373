"""The plugin: which routes it has, and what it answers."""

import base64
import hashlib
import importlib.util
import pathlib
import re

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from keras_gradwatch_tensorboard import records

FOLDER = pathlib.Path(__file__).parent
# Seconds for which a browser keeps Bokeh's script.
EXPIRES = 24 * 3600
SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
MISSING = "This tab needs Bokeh 3.9 or later: pip install bokeh"


class GradientsPlugin(base_plugin.TBPlugin):
    """Serves the page of the runs that are chosen in the tab.

    Args:
        context: `base_plugin.TBContext`.
    """

    plugin_name = "gradwatch"

    def __init__(self, context):
        self._finder = records.Finder(context.logdir)

    def get_plugin_apps(self):
        """The routes."""
        return {
            "/index.js": self._index,
            "/bokeh.js": self._bokeh,
            "/runs": self._runs,
            "/page": self._page,
        }

    def is_active(self):
        """Whether a run has a record."""
        return self._finder.any()

    def frontend_metadata(self):
        """How the tab is loaded, and what it is called."""
        return base_plugin.FrontendMetadata(
            es_module_path="/index.js", tab_name="Gradients"
        )

    @wrappers.Request.application
    def _index(self, request):
        script = (FOLDER / "index.js").read_text(encoding="utf-8")
        return http_util.Respond(request, script, "text/javascript")

    @wrappers.Request.application
    def _bokeh(self, request):
        path = _folder_of_bokeh() / "server" / "static" / "js" / "bokeh.min.js"
        script = path.read_text(encoding="utf-8")
        return http_util.Respond(request, script, "text/javascript", expires=EXPIRES)

    @wrappers.Request.application
    def _runs(self, request):
        found = self._finder.all()
        runs = [{"name": n, "stamp": records.stamp(d)} for n, d in found.items()]
        problem = MISSING if _folder_of_bokeh() is None else None
        answer = {"runs": runs, "problem": problem}
        return http_util.Respond(request, answer, "application/json")

    @wrappers.Request.application
    def _page(self, request):
        from keras_gradwatch.dashboard.page import page
        from keras_gradwatch.dashboard.runs import read_all

        found = self._finder.all()
        # A run may be gone since it was listed.
        chosen = [name for name in request.args.getlist("run") if name in found]
        runs, problems = read_all({name: found[name] for name in chosen})
        for run in runs:
            run.name = run.name.removesuffix("/" + records.FOLDER)
        how = {"title": "Gradients", "script": "bokeh.js"}
        try:
            text = page(runs, problems, **how)
        except Exception as error:  # whatever a foreign file holds: the server goes on
            problems += [f"{', '.join(chosen)}: cannot be shown: {error!r}"]
            text = page([], problems, **how)
        return http_util.Respond(
            request, text, "text/html", csp_scripts_sha256s=_hashes(text)
        )


def _folder_of_bokeh():
    """Where Bokeh is installed, or None."""
    found = importlib.util.find_spec("bokeh")
    return None if found is None else pathlib.Path(found.origin).parent


def _hashes(text):
    """What TensorBoard's policy asks of scripts within a page: their SHA-256."""
    return [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in SCRIPT.findall(text)
    ]
