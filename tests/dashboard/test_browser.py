"""The page in a browser: as a file, and in a real TensorBoard."""

import io
import shutil

import matplotlib.image
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch.dashboard.page import page
from keras_gradwatch.reports import command
from tests.dashboard import browser as browsers
from tests.dashboard import runs
from tests.dashboard.server import Server

# One process of TensorBoard and one browser do for all.
pytestmark = pytest.mark.tensorflow
LABELS = "return [...gradwatch.runs[0].heatmap.axis.major_label_overrides.values()]"
FRAME = "return document.querySelector('iframe')"


@pytest.fixture(scope="module")
def browser():
    started = browsers.start()
    yield started
    started.driver.quit()


@pytest.fixture(scope="module")
def logs(tmp_path_factory, browser):
    """Directory with a run that was protected and one that was not."""
    directory = tmp_path_factory.mktemp("logs")
    for name in ("protected", "stock"):
        runs.train(directory / name, name == "protected")
    return directory


@pytest.fixture(scope="module")
def run(logs):
    return keras_gradwatch.load(logs / "protected")


@pytest.fixture(scope="module")
def file(logs):
    """The page of one run, as the command writes it."""
    path = logs / "report.html"
    assert command.main(["html", str(logs / "protected"), "--out", str(path)]) == 0
    return path.as_uri()


@pytest.fixture(scope="module")
def server(logs, tmp_path_factory):
    """TensorBoard on a copy of the runs, which tests may write to."""
    folder = tmp_path_factory.mktemp("board")
    shutil.copytree(logs, folder / "logs")
    started = Server(folder / "logs", folder / "output.txt", "true")
    started.logdir = folder / "logs"
    try:
        started.wait()
        yield started
    finally:
        started.stop()


TAB = """
const name = document.querySelector("[role=tab] [data-plugin-id=gradwatch]")
if (name?.textContent.trim() == "Gradients") name.click()
const frames = [...document.querySelectorAll("iframe")]
return frames.find((frame) => frame.src.includes("name=gradwatch"))
"""


def open_tab(browser, server):
    """Opens the tab as a person does, and goes into its frame."""
    browser.driver.get("about:blank")
    browser.driver.get(server.url)
    browser.driver.switch_to.frame(browser.wait(TAB))


def choose(browser, *names):
    """Chooses runs at the left, and goes into their page."""
    browser.wait("return document.querySelector('nav input[type=checkbox]')")
    browser.script(
        "for (const box of document.querySelectorAll('nav input[type=checkbox]'))"
        " if (box.checked != arguments[0].includes(box.value)) box.click()",
        [f"{name}/gradwatch" for name in names],
    )
    drawn = "const frames = document.querySelectorAll('iframe'); return "
    drawn += "frames.length == 1 && frames[0].style.visibility == 'visible' && "
    drawn += "(frames[0].contentWindow.gradwatch?.runs.length ?? 0) == arguments[0]"
    browser.wait(drawn, len(names))
    browser.driver.switch_to.frame(browser.script(FRAME))


def test_layers_and_verdict_are_there(browser, file, run):
    browser.open(file)
    shown = browser.script(LABELS)
    assert shown == [
        f"first/{w}" if v < 2 else shown[v] if v < 4 else f"logits/{w}"
        for v, w in enumerate(["kernel", "bias"] * 3)
    ]
    text = browser.script("return document.body.innerText")
    for line in (*run.report["verdict"].splitlines(), run.events[0].message):
        assert line in text
    assert not browser.errors()


def test_a_name_with_html_is_text(browser, file):
    browser.open(file)
    assert runs.HOSTILE[-10:] in "".join(browser.script(LABELS))
    name = browser.script("return gradwatch.runs[0].variables[2]")
    assert runs.HOSTILE in name
    told = browser.point("heatmap", 5, 2.5, click=True)
    assert told.startswith(f"{runs.HOSTILE}/kernel\n")
    assert browser.script("return document.querySelectorAll('img').length") == 0
    assert browser.driver.title != "bad"


@pytest.mark.parametrize(("step", "v"), [(3, 0), (40, 4)])
def test_hovering_tells_what_the_record_has(browser, file, run, step, v):
    browser.open(file)
    told = browser.point("heatmap", step, v + 0.5)
    value = float(run.norms[run.steps == step, v][0])
    first, second, *rest = told.split("\n")
    assert run.variables[v].endswith(first)
    words, number = second.rsplit(" ", 1)
    assert words == f"step {step}: norm"
    assert float(number) == float(f"{value:.3g}")
    median = np.median(run.norms[:, v][run.norms[:, v] > 0])
    assert float(rest[0].split(" ")[0]) == pytest.approx(value / median, rel=0.01)
    steps, ratios = run.statistics["update_ratio"]
    t = np.searchsorted(steps, step, "right") - 1
    if np.isfinite(ratios[t, v]):
        assert rest[1].startswith("update / weights ")
        assert float(rest[1].split(" ")[3]) == pytest.approx(ratios[t, v], rel=0.01)


def test_an_event_tells_its_message(browser, file, run):
    browser.open(file)
    event = run.events[0]
    assert event.message in browser.point(0, event.step)
    v = run.variables.index(event.variable)
    assert event.message in browser.point("heatmap", event.step, v + 0.5)


def test_zooming_one_chart_moves_the_other(browser, file):
    browser.open(file)
    browser.drag(1, 20, 40)
    heatmap = "const {cells, figure} = gradwatch.runs[0].heatmap; "
    browser.wait(heatmap + "return cells.data.x[0] == figure.x_range.start")
    assert _view(browser) == pytest.approx([20, 40], abs=0.5)
    browser.drag("heatmap", 25, 35)
    assert _view(browser) == pytest.approx([25, 35], abs=0.5)


def _view(browser):
    """The steps that the loss is shown of."""
    chart = "const {start, end} = gradwatch.runs[0].charts[1].x_range; "
    return browser.script(chart + "return [start, end]")


def test_clicking_a_layer_shows_its_numbers(browser, file, run):
    browser.open(file)
    browser.point("heatmap", 30, 4.5, click=True)
    name = run.variables[4]
    assert browser.wait("return document.getElementById('gw-layer').value") == name
    drawn = browser.script("return [...gradwatch.runs[0].sources.norm.data.y]")
    np.testing.assert_allclose(drawn, run.norms[:, 4], rtol=1e-6)
    bins = browser.script("return gradwatch.runs[0].bins.data")
    counts = np.array([run.histograms[step][4, :-2] for step in run.histograms])
    assert len(bins["top"]) == (counts > 0).sum() > 30
    assert sorted(set(bins["left"])) == list(run.histograms)
    listed = browser.script("return document.getElementById('gw-events-0').innerText")
    own = [event.message for event in run.events if event.variable == name]
    assert listed.split("\n") == own or not own


def test_each_row_has_the_colour_of_its_values(browser, tmp_path):
    """Seen on the screen: the norms rise from the first row to the last one."""
    run = runs.large(6, 40)
    run.norms[:] = 10.0 ** np.arange(-3, 3)
    path = tmp_path / "page.html"
    path.write_text(page([run]), encoding="utf-8")
    browser.open(path.as_uri())
    middles = [row + 0.5 for row in range(6)]
    places = [browser.script(browsers.PLACE, "heatmap", 10, y) for y in middles]
    seen = matplotlib.image.imread(io.BytesIO(browser.driver.get_screenshot_as_png()))
    red, green, blue = np.array([seen[round(y), round(x), :3] for x, y in places]).T
    assert (np.diff(green) > 0).all()  # of the palette: from violet to yellow
    assert blue[0] > red[0] > green[0] and red[-1] > green[-1] > blue[-1]


def test_the_colours_can_be_changed(browser, file):
    browser.open(file)
    cells = "return [...gradwatch.runs[0].heatmap.cells.data.image[0]].join()"
    norms = browser.script(cells)
    browser.script(
        "const high = document.getElementById('gw-high');"
        "high.value = '1e10'; high.dispatchEvent(new Event('change'))"
    )
    changed = f"const now = (() => {{{cells}}})(); return now != arguments[0] && now"
    wider = browser.wait(changed, norms)
    browser.script(
        "const measure = document.getElementById('gw-measure');"
        "measure.value = 'median_ratio'; measure.dispatchEvent(new Event('change'))"
    )
    browser.wait(changed, wider)


def test_a_large_run_is_shown_soon(browser, logs):
    """1,000 variables and 10,000 steps, thinned out to 2,000 columns."""
    path = logs / "large.html"
    path.write_text(page([runs.large(1000, 10_000)]), encoding="utf-8")
    # 2 s on a machine that has nothing else to do; here, other tests run beside it.
    assert browser.open(path.as_uri()) < 30
    table = "return gradwatch.runs[0].measures.norm."
    assert 1500 < browser.script(table + "first.length") <= 2000
    blocks = browser.script("return gradwatch.runs[0].rows.length")
    assert blocks < 60
    event = browser.script("return gradwatch.runs[0].events[0]")
    row = browser.script(
        "return gradwatch.runs[0].rows.findIndex((row) => row.end > arguments[0])",
        event["variable"],
    )
    assert "not finite" in browser.point("heatmap", event["step"] + 5, row + 0.5)
    browser.point("heatmap", event["step"], row + 0.5, click=True)
    assert browser.script("return gradwatch.runs[0].rows.length") > blocks
    assert not browser.errors()


def test_the_tab_is_there_with_both_loaders(server, tmp_path):
    assert server.tab()["tab_name"] == "Gradients" and server.tab()["enabled"]
    slow = Server(server.logdir, tmp_path / "output.txt", "false")
    try:
        slow.wait()
        assert slow.tab() == server.tab()
        assert "bokeh.js" in slow.read("plugin/gradwatch/page?run=stock/gradwatch")
    finally:
        slow.stop()


def test_the_tab_follows_the_runs_and_what_is_written(browser, server, run):
    record = server.logdir / "growing" / "gradwatch" / "record.gwr"
    record.parent.mkdir(parents=True)
    whole = (server.logdir / "protected" / "gradwatch" / "record.gwr").read_bytes()
    record.write_bytes(whole[: len(whole) // 2])
    open_tab(browser, server)
    choose(browser, "stock", "growing")
    names = browser.script("return gradwatch.runs.map((run) => run.name)")
    assert names == ["growing", "stock"]
    assert browser.script("return gradwatch.runs[0].heatmap.figure.x_range.id") == (
        browser.script("return gradwatch.runs[1].charts[0].x_range.id")
    )
    last = "return gradwatch.runs[0].measures.norm.last.at(-1)"
    before = browser.script(last)
    browser.script(
        "const measure = document.getElementById('gw-measure');"
        "measure.value = 'update_ratio'; measure.dispatchEvent(new Event('change'))"
    )
    record.write_bytes(whole)
    browser.driver.switch_to.default_content()
    browser.script("document.querySelector('.reload-button').click()")
    browser.driver.switch_to.frame(browser.wait(TAB))
    inner = "const frames = [...document.querySelectorAll('iframe')];"
    inner += "const {runs} = frames[0].contentWindow.gradwatch;"
    inner += "return frames.length == 1 && runs[0].measures.norm.last.at(-1)"
    browser.wait(f"{inner} > arguments[0]", before)
    browser.driver.switch_to.frame(browser.script(FRAME))
    assert browser.script(last) == run.steps[-1]
    # The view is as it was left.
    assert browser.script("return gradwatch.state().measure") == "update_ratio"


@pytest.mark.parametrize("kind", ["empty", "foreign", "truncated", "malformed"])
def test_files_that_cannot_be_read_give_a_line(browser, server, kind):
    whole = (server.logdir / "protected" / "gradwatch" / "record.gwr").read_bytes()
    head, _, rest = whole.partition(b"\n")
    content = {
        "empty": b"",
        "foreign": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "truncated": head[: len(head) // 2],
        "malformed": head + b"\n" + b'{"rows": "many", "bytes": -1}\n' + rest[:1000],
    }[kind]
    record = server.logdir / kind / "gradwatch" / "record.gwr"
    record.parent.mkdir(parents=True)
    record.write_bytes(content)
    page_of = f"plugin/gradwatch/page?run={kind}/gradwatch&run=stock/gradwatch"
    browser.open(f"{server.url}/data/{page_of}")
    shutil.rmtree(server.logdir / kind)
    lines = "return [...document.querySelectorAll('.problem')].map((p) => p.innerText)"
    (line,) = browser.script(lines)
    assert line.startswith(f"{kind}/gradwatch: ")
    assert browser.script("return gradwatch.runs.map((run) => run.name)") == ["stock"]
    assert not browser.errors()
    assert "Traceback" not in server.output.read_text()
