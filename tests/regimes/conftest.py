"""The full matrix runs only where it is asked for, in parts if need be."""

import pathlib

import pytest

from tests import helper

HERE = pathlib.Path(__file__).parent


def pytest_addoption(parser):
    parser.addoption(
        "--shard",
        metavar="I/N",
        help="run every N-th test of tests/regimes, from the I-th on",
    )


def pytest_collection_modifyitems(config, items):
    here = [item for item in items if item.path.parent == HERE]
    left_out = set()
    if "full" not in config.getoption("markexpr"):
        left_out |= {item for item in here if item.get_closest_marker("full")}
    # An option of this file is known only where pytest was started on this folder.
    shard = config.getoption("shard", None)
    if shard:
        index, count = map(int, shard.split("/"))
        left_out |= {item for i, item in enumerate(here) if i % count != index - 1}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def leave_nothing_behind(request):
    """Thousands of models pass through one process of the full matrix."""
    yield
    if request.node.get_closest_marker("full"):
        helper.forget_graphs()
