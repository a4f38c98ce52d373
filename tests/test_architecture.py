"""Imports point in one direction, and private Keras names stay in one folder."""

import ast
import functools
import graphlib
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.tensorflow  # the source is the same on every backend

PACKAGE = Path(__file__).resolve().parents[1] / "keras_gradwatch"

# From low to high. A module imports from its own folder and from lower layers only;
# what stands on one line is independent of one another.
LAYERS = (
    ("methods", "version"),
    ("tensors",),
    ("statistics",),
    ("records",),
    ("dashboard", "detectors", "policies"),
    ("keras_hooks",),
    ("backends",),
    ("train_step",),
    ("controller",),
    ("model", "reports", "tensorboard"),
    ("loggers",),
    ("callbacks",),
    ("__init__", "__main__"),
)
HEIGHTS = {name: height for height, layer in enumerate(LAYERS) for name in layer}


def modules(root):
    """Dict of the dotted name of each module below `root` to its syntax tree."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = parse(path.read_text(encoding="utf-8"))
    return found


@functools.cache
def parse(text):
    """The syntax tree of a module; the copies of most tests are alike."""
    return ast.parse(text)


def imports(root):
    """Dict of each module to the modules of the package that it imports, a set.

    Imports within functions count, too: a cycle is not gone because it is put off.
    """
    trees = modules(root)
    found = {}
    for name, tree in trees.items():
        targets = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}: relative import, line {node.lineno}"
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= {f if f in trees else node.module for f in full}
        found[name] = {t for t in targets if t.partition(".")[0] == root.name}
    return found


def layer_of(module):
    """The folder of a module, or the module itself if it stands outside of them."""
    return [*module.split("."), "__init__"][1]


def upward_imports(root):
    """The imports that do not point downwards, a set of `importer -> imported`."""
    return {
        f"{name} -> {target}"
        for name, targets in imports(root).items()
        for target in targets
        if layer_of(name) != layer_of(target)
        and HEIGHTS[layer_of(name)] <= HEIGHTS[layer_of(target)]
    }


def cycle(root):
    """The modules of one import cycle, a list; empty if there is none."""
    try:
        graphlib.TopologicalSorter(imports(root)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def private_names(tree):
    """The private attributes and strings in a module, a set of names."""
    return {
        name
        for node in ast.walk(tree)
        for name in (getattr(node, "attr", None), getattr(node, "value", None))
        if isinstance(name, str) and is_private(name) and name.isidentifier()
    }


def defined_names(tree):
    """What a module defines: functions, classes, and what it assigns to."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found |= {node.attr} if is_self(node.value) else set()
    return found


def is_self(node):
    return isinstance(node, ast.Name) and node.id == "self"


# Of named tuples, public in spite of their names.
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
# Of Keras, whether or not keras_hooks/ uses them at present.
KERAS_NAMES = {
    "_accumulated_gradients",
    "_flatten_layers",
    "_get_current_learning_rate",
    "_iterations",
    "_jax_state",
    "_jax_state_synced",
    "_learning_rate",
    "_metrics",
    "_symbolic_build",
    "_trainable_variables",
    "_var_key",
}


def private_uses(root):
    """Private names of Keras outside of keras_hooks/, a set of `module: name`.

    A private name of an object is taken for Keras's unless the module, or for `self`
    some module of the package, defines it.
    """
    trees = modules(root)
    hooks = {n: t for n, t in trees.items() if layer_of(n) == "keras_hooks"}
    known = KERAS_NAMES.union(*map(private_names, hooks.values()))
    known -= set().union(*map(defined_names, hooks.values())) - KERAS_NAMES
    ours = set().union(*map(defined_names, trees.values()))
    found = set()
    for name in trees.keys() - hooks.keys():
        own = defined_names(trees[name]) | NAMED_TUPLE
        for node in ast.walk(trees[name]):
            if isinstance(node, ast.Import | ast.ImportFrom):
                targets = [getattr(node, "module", None)]
                targets += [alias.name for alias in node.names]
                if any(str(t).startswith("keras.src") for t in targets):
                    found.add(f"{name}: keras.src")
            elif isinstance(node, ast.Constant) and node.value in known:
                found.add(f"{name}: {node.value}")
            elif isinstance(node, ast.Attribute):
                if node.attr == "src" and getattr(node.value, "id", None) == "keras":
                    found.add(f"{name}: keras.src")
                allowed = (ours if is_self(node.value) else own) - known
                if is_private(node.attr) and node.attr not in allowed:
                    found.add(f"{name}: {node.attr}")
    return found


def test_every_module_has_its_layer():
    assert {layer_of(name) for name in modules(PACKAGE)} == HEIGHTS.keys()


def test_imports_point_downwards():
    assert not upward_imports(PACKAGE)


def test_no_module_imports_itself_by_way_of_others():
    assert not cycle(PACKAGE)


def test_private_keras_names_stay_in_keras_hooks():
    assert not private_uses(PACKAGE)


@pytest.fixture
def copy(tmp_path):
    """A copy of the package, to plant faults in."""
    ignore = shutil.ignore_patterns("__pycache__")
    return shutil.copytree(PACKAGE, tmp_path / PACKAGE.name, ignore=ignore)


def plant(root, module, code):
    """Appends code to a module, after what it defines."""
    path = root / module
    path.write_text(path.read_text(encoding="utf-8") + code, encoding="utf-8")


@pytest.mark.parametrize(
    ("module", "code", "reported"),
    [
        (
            "tensors/packed.py",
            "\n\ndef late():\n    from keras_gradwatch.callbacks import GradWatch\n",
            "keras_gradwatch.tensors.packed -> keras_gradwatch.callbacks",
        ),
        (
            "detectors/onset.py",
            "\nfrom keras_gradwatch.policies import base\n",
            "keras_gradwatch.detectors.onset -> keras_gradwatch.policies.base",
        ),
        (
            "train_step/row.py",
            "\nimport keras_gradwatch.controller.plan\n",
            "keras_gradwatch.train_step.row -> keras_gradwatch.controller.plan",
        ),
        (
            "methods.py",
            "\nimport keras_gradwatch\n",
            "keras_gradwatch.methods -> keras_gradwatch",
        ),
    ],
)
def test_an_upward_import_is_reported(copy, module, code, reported):
    before = upward_imports(copy)
    plant(copy, module, code)
    assert upward_imports(copy) - before == {reported}


def test_a_cycle_is_reported(tmp_path):
    root = tmp_path / "made"
    (root / "inner").mkdir(parents=True)
    (root / "one.py").write_text("from made.inner import two\n")
    (root / "inner" / "two.py").write_text("import math\n")
    assert cycle(root) == []
    (root / "inner" / "two.py").write_text("def late():\n    import made.one\n")
    assert set(cycle(root)) == {"made.one", "made.inner.two"}


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("model._metrics", "_metrics"),
        ("self._learning_rate", "_learning_rate"),
        ("model.never_heard._of_this", "_of_this"),
        ("getattr(model, '_flatten_layers', None)", "_flatten_layers"),
        ("import keras.src.trainers", "keras.src"),
        ("from keras.src import trainers", "keras.src"),
        ("keras.src.backend", "keras.src"),
    ],
)
def test_a_private_name_is_reported(copy, code, name):
    before = private_uses(copy)
    plant(copy, "records/names.py", f"\n\ndef late(self, model):\n    {code}\n")
    found = private_uses(copy) - before
    assert found == {f"keras_gradwatch.records.names: {name}"}
