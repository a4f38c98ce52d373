"""The package as it is shipped: what is in the wheel, and what it depends on."""

import ast
import configparser
import importlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from tensorboard.plugins.base_plugin import TBPlugin

pytestmark = pytest.mark.tensorflow  # a wheel is the same for all of them

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_gradwatch"
# The tab of TensorBoard, which imports nothing of the other one when it is loaded.
TAB = ROOT / "keras_gradwatch_tensorboard"
# What is shipped beside Python files.
DATA = (".css", ".html", ".js", ".typed")

# The backends are extras, and these folders alone may name them. Pillow is what
# tensorboard itself depends on.
BACKENDS = {"jax", "tensorflow", "torch"}
MAY_NAME_THEM = ("backends", "keras_hooks", "tensors")
BROUGHT_ALONG = {"PIL": "tensorboard"}
# Imported where a method needs them, and only there.
OPTIONAL = {"bokeh", "matplotlib", "pandas"}


def source_files():
    return sorted(PACKAGE.rglob("*.py"))


def run(*command, cwd):
    """Run a command away from the checkout; a failure shows what it printed."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments, cwd):
    return run(
        *(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"),
        *arguments,
        cwd=cwd,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that nothing is left in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    for package in (PACKAGE, TAB):
        shutil.copytree(package, source / package.name, ignore=ignore)
    for name in ("tests", "examples"):  # packages that must not end up in the wheel
        (source / name).mkdir()
        (source / name / "__init__.py").touch()
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    pip("wheel", *offline, "--wheel-dir", str(folder), str(source), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    shipped = {name for name in names if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in (PACKAGE, TAB)
        for path in package.rglob("*")
        if path.suffix in (".py", *DATA)
    }
    assert shipped == expected
    assert any(re.search(r"\.dist-info/.*LICENSE$", name) for name in names)


def test_wheel_installs_and_imports(wheel, tmp_path):
    target = tmp_path / "target"
    offline = ("--no-deps", "--no-index")
    pip("install", *offline, "--target", str(target), str(wheel), cwd=tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(target)!r})\n"
        "import keras_gradwatch.version as version\n"
        "print(version.__file__, version.__version__, sep='\\n')"
    )
    # The backend may print while it is imported: the last two lines are ours.
    *_, file, version = run(sys.executable, "-c", code, cwd=tmp_path).splitlines()
    assert Path(file).resolve().is_relative_to(target.resolve())
    assert wheel.name.startswith(f"keras_gradwatch-{version}-")


def imported_packages(path):
    """Top-level names of the third-party packages a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {PACKAGE.name}


def at_import(path):
    """Names that a module imports as soon as it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    nodes = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
    names = [getattr(n, "module", None) or n.names[0].name for n in nodes]
    return {name.partition(".")[0] for name in names}


def requirements(text):
    """The names in a list of requirements, one a line."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {re.match(r"[\w.-]+", line)[0].lower() for line in lines}


def setup_cfg():
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_dependencies_are_what_the_package_imports():
    imported = set().union(*map(imported_packages, source_files()))
    imported -= BACKENDS | OPTIONAL
    needed = {BROUGHT_ALONG.get(name, name) for name in imported}
    assert needed == requirements(setup_cfg()["options"]["install_requires"])


def test_the_tab_loads_neither_keras_nor_bokeh():
    """TensorBoard imports it in any case; what it takes comes with TensorBoard."""
    named = set().union(*map(at_import, TAB.glob("*.py")))
    assert named - set(sys.stdlib_module_names) == {TAB.name, "tensorboard", "werkzeug"}
    config = setup_cfg()
    entry = config["options.entry_points"]["tensorboard_plugins"]
    module, _, name = entry.partition("=")[2].strip().partition(":")
    assert issubclass(getattr(importlib.import_module(module), name), TBPlugin)


def test_only_some_folders_import_a_backend():
    offenders = {
        path.relative_to(ROOT).as_posix(): sorted(named)
        for path in source_files()
        if (named := imported_packages(path) & BACKENDS)
        and path.relative_to(PACKAGE).parts[0] not in MAY_NAME_THEM
    }
    assert not offenders


def test_extras_spell_out_what_they_need():
    extras = dict(setup_cfg()["options.extras_require"])
    assert set(extras) >= BACKENDS | {"examples", "test", "docs", "lint"}
    for name, text in extras.items():
        assert "keras-gradwatch" not in requirements(text), name
