"""What the tests of the studies share."""

import importlib

import pytest

from tests import helper


@pytest.fixture(scope="module")
def study(request):
    """The example that a module of tests is about, imported."""
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(helper.ROOT / "examples")
        yield importlib.import_module(name)
