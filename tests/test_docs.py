"""What is written is true: every snippet runs, every public name is documented."""

import dataclasses
import inspect
import re

import keras
import numpy as np
import pytest

import keras_gradwatch
from keras_gradwatch import callbacks, detectors, loggers, policies
from keras_gradwatch.records.events import ACTIONS, Event
from keras_gradwatch.statistics.names import NAMES
from keras_gradwatch.tensorboard import tags
from tests import helper
from tests.snippets import BLOCK, PAGES, blocks, page_name, run

NAMESPACES = (keras_gradwatch, callbacks, detectors, loggers, policies)
PUBLIC = {
    f"{module.__name__}.{name}": getattr(module, name)
    for module in NAMESPACES
    for name in module.__all__
    if not name.startswith("__")
}
CLASSES = {name: found for name, found in PUBLIC.items() if inspect.isclass(found)}


def read(name):
    return (helper.ROOT / name).read_text(encoding="utf-8")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty working directory, and the same random numbers each time."""
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)


WITH_CODE = [p for p in PAGES if BLOCK.search(p.read_text(encoding="utf-8"))]


# On JAX, where compiling takes long, only what is said of JAX.
OF_JAX = [page for page in WITH_CODE if page.stem in ("backends", "own_train_step")]
RUN_HERE = OF_JAX if helper.BACKEND == "jax" else WITH_CODE


def is_central(page):
    """Whether a page's snippets run on TensorFlow, too, in `make test`."""
    return page.stem in ("README", "index", "tensorboard", "own_train_step")


@pytest.mark.parametrize(
    "page", helper.few(list(filter(is_central, RUN_HERE)), RUN_HERE), ids=page_name
)
# Keras says so on PyTorch of the model that is frozen on purpose.
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
# And on TensorFlow of a loss that is wrong on purpose.
@pytest.mark.filterwarnings("ignore:.*received `from_logits=True`")
@pytest.mark.usefixtures("elsewhere")
def test_every_snippet_runs(page):
    run(page.read_text(encoding="utf-8"), str(page), {"__name__": "snippets"})


def test_the_pages_with_snippets_are_found():
    names = {page_name(page) for page in WITH_CODE}
    guides = {p.stem for p in PAGES if p.parent.name == "guides"}
    assert {"README.md", "docs/index.md"} <= names
    assert len(guides) > 6
    assert {f"docs/guides/{guide}.md" for guide in guides} <= names


WITH_EXAMPLE = [name for name in PUBLIC if blocks(inspect.getdoc(PUBLIC[name]) or "")]


@pytest.mark.parametrize(
    "name",
    helper.few(
        ["keras_gradwatch.watch", "keras_gradwatch.callbacks.GradWatch"], WITH_EXAMPLE
    ),
)
@pytest.mark.usefixtures("elsewhere")
def test_every_docstring_example_runs(name):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1, name="dense")(inputs))
    model.compile("sgd", "mse")
    given = {
        "keras": keras,
        "keras_gradwatch": keras_gradwatch,
        "callbacks": callbacks,
        "detectors": detectors,
        "policies": policies,
        "model": model,
        "x": np.ones((8, 4), "float32"),
        "y": np.ones((8, 1), "float32"),
    }
    run(inspect.getdoc(PUBLIC[name]), name, given)


def test_what_is_used_by_itself_has_an_example():
    assert len(WITH_EXAMPLE) > 15
    for name in callbacks.__all__:
        if not name.endswith("Error"):
            assert f"keras_gradwatch.callbacks.{name}" in WITH_EXAMPLE


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name):
    found = PUBLIC[name]
    first = (inspect.getdoc(found) or "").split("\n", 1)[0]
    assert first.endswith("."), f"{name}: no first line that ends with a full stop"
    if inspect.isclass(found):
        assert "__doc__" in vars(found), f"{name} has the docstring of its base"


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_is_documented(name):
    found, text = CLASSES[name], inspect.getdoc(CLASSES[name])
    named = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    if not named or issubclass(found, Exception):
        return
    # What the package makes and hands out has fields; what a user makes has arguments.
    record = dataclasses.is_dataclass(found) or issubclass(found, tuple)
    assert ("Attributes:" if record else "Args:") in text
    for argument in named:
        assert re.search(rf"\b{argument}\b", text), f"{name}: {argument}"
    if not record and found is not keras_gradwatch.GradientMonitor:
        assert "Raises:" in text


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_in_the_guides(name):
    text = "".join(p.read_text(encoding="utf-8") for p in PAGES if "api" not in p.parts)
    assert re.search(rf"\b{name.rpartition('.')[2]}\b", text)


def test_tables_name_what_there_is():
    watching = read("docs/guides/watching.md")
    for statistic in NAMES:
        assert f"| `{statistic}` |" in watching
    responses = read("docs/guides/responses.md")
    for name in (*ACTIONS, *(field.name for field in dataclasses.fields(Event))):
        assert f"`{name}`" in responses
    for name in detectors.__all__:
        found = getattr(detectors, name)
        if getattr(found, "kind", "any") not in ("any", "explosion"):
            assert f"`{found.kind}`" in responses
    board = read("docs/guides/tensorboard.md")
    scalars = (*tags.SCALARS, *tags.HOLDING, *tags.SCALING)
    for tag in (*scalars, tags.HEATMAP, tags.EVENTS, tags.REPORT):
        assert f"| `{tag}` |" in board


def test_every_policy_has_a_page_with_numbers_that_were_measured():
    """Each row of a page's table is one that the benchmark has written."""
    rows = re.findall(r"^\| .*\|$", read("docs/benchmarks/policies.md"), re.MULTILINE)
    nav = read("mkdocs.yml")
    names = {n for n in policies.__all__ if inspect.isclass(getattr(policies, n))}
    for name in names - {"Policy"}:
        page = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        page = f"methods/{page.replace('zclip', 'z_clip')}.md"
        assert f"{page}\n" in nav
        text = read(f"docs/{page}")
        assert "python benchmarks/policies.py" in text
        quoted = re.findall(r"^\| .*\d\.\d{3} \|$", text, re.MULTILINE)
        assert len(quoted) >= 2 and set(quoted) <= set(rows), page
        assert f"| `{name}(" in text


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)", read("README.md")):
        assert (helper.ROOT / target).is_file(), target
