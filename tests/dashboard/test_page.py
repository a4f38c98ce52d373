"""How a run becomes a page, without a browser."""

import json
import sys

import numpy as np
import pytest
from tensorboard.plugins.base_plugin import TBContext
from werkzeug.test import Client

import keras_gradwatch
from keras_gradwatch.callbacks import GradientHistory, GradientTensorBoard, GradWatch
from keras_gradwatch.dashboard import colors
from keras_gradwatch.dashboard.blocks import blocks, labels
from keras_gradwatch.dashboard.columns import AROUND, columns
from keras_gradwatch.dashboard.data import payload, steps_of
from keras_gradwatch.dashboard.page import page
from keras_gradwatch.dashboard.runs import MOST, names_of, read
from keras_gradwatch.dashboard.timeline import curves
from keras_gradwatch.records.rows import APPLIED, SKIPPED
from keras_gradwatch_tensorboard.plugin import GradientsPlugin
from tests import helper
from tests.dashboard import runs

pytestmark = pytest.mark.tensorflow


@pytest.mark.parametrize("limit", [10, 100, 300])
@pytest.mark.parametrize("events", [(), (500,), range(0, 1000, 20)])
def test_columns_hold_every_step_and_every_spike(limit, events):
    steps = np.arange(5, 1005)
    found = columns(steps, limit, events)
    assert len(found.starts) <= limit
    assert found.first[0] == 5 and found.last[-1] == 1004
    assert (found.first[1:] == found.last[:-1] + 1).all()
    values = np.zeros((1000, 2), "float32")
    values[700] = 7, np.inf
    values[:, 1][values[:, 1] == 0] = np.nan
    largest = found.largest(values)
    (j,) = np.flatnonzero((found.first <= 705) & (found.last >= 705))
    assert largest[j].tolist() == [7, np.inf]
    assert np.isnan(np.delete(largest[:, 1], j)).all()


def test_steps_around_an_event_keep_columns_of_their_own():
    found = columns(np.arange(10_000), 500, [6000])
    near = (found.first >= 6000 - AROUND) & (found.last < 6000 + AROUND)
    assert (found.first[near] == found.last[near]).all()
    assert near.sum() == 2 * AROUND


def test_short_runs_are_not_thinned_out():
    steps = np.array([0, 1, 5, 9])
    found = columns(steps, 4)
    assert found.first.tolist() == found.last.tolist() == steps.tolist()
    assert len(columns(steps[:0], 4).starts) == 0


def test_blocks():
    assert labels(["net/a/kernel", "net/b/kernel"]) == ["a/kernel", "b/kernel"]
    layers = [f"net/conv{a}_block{b}_{c}" for a in "23" for b in "123" for c in "12"]
    names = [f"{layer}/{w}" for layer in layers for w in ("kernel", "bias")]
    found = blocks([n for n in names if "conv" in n] * 1)
    assert found[0] == ("conv2_block1_1", 0, 2) and found[-1][2] == len(names)
    many = [f"{name.replace('/', f'/{i}_')}" for i in range(9) for name in names]
    ends = [end for _, _, end in blocks(many)]
    assert ends[-1] == len(many) and len(ends) <= 40


def test_an_explosion_does_not_take_all_colours():
    healthy = np.logspace(-2, 0, 1000)
    low, high = colors.log_range([healthy])
    assert (low, high) == pytest.approx((-2, 0), abs=0.05)
    exploded = np.append(healthy, [1e30] * 300 + [np.inf, np.nan, 0])
    assert colors.log_range([exploded])[1] < 4
    assert colors.log_range([np.array([np.nan, 0])]) == (-1, 1)


def test_the_share_of_updates_that_were_undone():
    run = runs.large(3, 1000)
    run.scalars["outcome"][:] = APPLIED
    run.scalars["outcome"][500:520] = SKIPPED
    run.scalars["held"][:] = 0
    undone = curves(run, steps_of(run))["undone"]
    assert undone[519] == 1 and undone[509] == 0.5 and undone[499] == undone[540] == 0


def test_legends_have_only_what_was_recorded():
    run = runs.large(3, 100)
    every = page([run])
    assert "standard deviation" in every and "</i>skipped" in every
    assert "</i>stopped" not in every  # no such event
    steps, values = run.statistics["std"]
    run.statistics["std"] = steps, np.full_like(values, np.nan)
    assert "standard deviation" not in page([run])


def test_a_page_of_100_variables_can_be_sent_by_mail():
    run = runs.large(100, 10_000, samples=500)
    assert len(page([run]).encode()) < 3e6
    table = payload(run, steps_of(run))["measures"]["norm"]
    assert len(table["values"]) == 100 * len(table["first"]) > 150_000


def test_text_is_escaped():
    run = runs.large(2, 20)
    run.name = run.report["verdict"] = "<script>alert(1)</script>"
    run.variables = ("<script>alert(1)</script>/kernel", "b/kernel")
    text = page([run], ["<script>alert(1)</script>"])
    assert "<script>alert(1)" not in text


def test_runs_without_steps_or_statistics():
    run = runs.large(2, 20)
    for name in ("scalars", "statistics"):
        setattr(run, name, {})
    assert "No report yet" in page([runs.large(2, 20), _without_steps()])
    run.report, run.events = None, []
    assert "steps 0 to 19, 2 variables, 0 events" in page([run])


def _without_steps():
    run = runs.large(2, 20)
    run.steps, run.norms, run.events = run.steps[:0], run.norms[:0], []
    run.scalars = {name: values[:0] for name, values in run.scalars.items()}
    run.statistics, run.report = {}, None
    return run


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """Callbacks of one `fit` in which a batch was bad, and their directory."""
    directory = tmp_path_factory.mktemp("watched") / "one"
    x, y = helper.regression_data(80)
    watching = [GradientHistory(), GradWatch(directory, verbose=0)]
    model = helper.regression(run_eagerly=True)
    helper.fit(model, helper.with_nan(x, 3, 8), y, watching)
    return directory, watching


def test_a_run_in_memory_is_what_its_record_has(watched):
    directory, (history, watching) = watched
    recorded = keras_gradwatch.load(directory)
    kept = history.to_run("run", watching.report())
    np.testing.assert_array_equal(kept.norms, recorded.norms)
    assert np.isinf(kept.norms[3]).all() and np.isfinite(kept.norms[4]).all()
    assert kept.variables == recorded.variables
    assert kept.report == json.loads(json.dumps(recorded.report))
    for name, values in recorded.scalars.items():
        np.testing.assert_array_equal(kept.scalars[name], values, name)


def test_callbacks_show_their_run(watched, tmp_path):
    _, watching = watched
    for callback in watching:
        callback.save_html(tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        # Its parts have other identifiers each time.
        assert callback.report().verdict.splitlines()[0] in text
        assert len(text) == pytest.approx(len(callback.show()), rel=0.01)
        frame = callback.show()._repr_html_()
        assert frame.startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
        assert "<script" not in frame
    for fresh in (GradWatch(), GradientHistory(), GradientTensorBoard(tmp_path)):
        with pytest.raises(ValueError, match="Nothing has been watched yet"):
            fresh.save_html(tmp_path / "none.html")


def test_a_record_that_is_gone_is_made_up_for(tmp_path):
    watching = GradWatch(tmp_path, verbose=0)
    helper.fit(
        helper.regression(run_eagerly=True), *helper.regression_data(), [watching]
    )
    (tmp_path / "gradwatch" / "record.gwr").unlink()
    assert "steps 0 to 2" in watching.show()


def test_without_bokeh(watched, monkeypatch):
    directory, (history, _) = watched
    for name in [name for name in sys.modules if name.partition(".")[0] == "bokeh"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    words = "Bokeh 3.9 or later: `pip install bokeh`"
    with pytest.raises(ImportError, match=words):
        history.show()
    answer = _ask(directory, "/runs")
    assert answer.json["problem"] == (
        "This tab needs Bokeh 3.9 or later: pip install bokeh"
    )


def test_bokeh_is_loaded_for_a_page_only():
    code = "import sys; sys.argv = ['gradwatch']; import keras_gradwatch.reports.pages"
    assert helper.run_python(code + "; print('bokeh' in sys.modules)") == "False\n"


def _ask(logdir, route, **query):
    plugin = GradientsPlugin(TBContext(logdir=str(logdir)))
    return Client(plugin.get_plugin_apps()[route]).get(query_string=query)


def test_the_tab_is_active_where_there_is_a_record(watched, tmp_path):
    directory, _ = watched
    assert GradientsPlugin(TBContext(logdir=str(directory))).is_active()
    for nothing in (str(tmp_path), str(tmp_path / "none"), None, ""):
        assert not GradientsPlugin(TBContext(logdir=nothing)).is_active()


def test_runs_have_the_names_that_tensorboard_gives_them(watched):
    directory, _ = watched
    (run,) = _ask(directory.parent, "/runs").json["runs"]
    assert run["name"] == f"{directory.name}/gradwatch"
    answer = _ask(directory.parent, "/page", run=run["name"])
    assert answer.status_code == 200 and "sha256-" in str(answer.headers)
    # A path is not what it reads.
    assert "problem" not in _ask(directory, "/page", run="../../etc").text


def test_names_of_runs():
    assert names_of(["/a/b/gradwatch"]) == ["b"]
    assert names_of(["/a/x/gradwatch", "/a/y/z"]) == ["x", "y/z"]
    assert names_of(["/a/x/1/gradwatch", "/a/y/1/gradwatch"]) == ["x/1", "y/1"]


def test_too_many_runs(tmp_path):
    for i in range(MOST + 1):
        folder = tmp_path / str(i) / "gradwatch"
        folder.mkdir(parents=True)
        (folder / "record.gwr").write_bytes(b"")
    with pytest.raises(
        ValueError, match=f"up to {MOST} runs, and there are {MOST + 1}"
    ):
        read([tmp_path])
    found, problems = read([tmp_path / "0", tmp_path / "1"])
    assert not found and [p.partition(": ")[0] for p in problems] == ["0", "1"]
