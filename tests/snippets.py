"""The Python blocks of the documentation, and how they are run."""

import re
import textwrap

from tests import helper

PAGES = [helper.ROOT / "README.md", *sorted((helper.ROOT / "docs").rglob("*.md"))]
# A comment above a block may name the one backend that it is for, or a package that is
# not installed for the other tests: `make test-clients` runs it.
BLOCK = re.compile(
    r"^( *)(?:<!-- (backend|needs): (\w+) -->\n\1)?```python\n(.*?)^\1```$",
    re.MULTILINE | re.DOTALL,
)
FREE = {(None, None), ("backend", helper.BACKEND)}


def blocks(text, package=None):
    """The Python blocks for this backend, each with the line that it begins at.

    Args:
        text: Markdown.
        package: None for the blocks that need no package; else the first of them, on
            which the recipes of a page stand, and those of this package.
    """
    found = list(BLOCK.finditer(text))
    wanted = [b for b in found if (b[2], b[3]) in FREE]
    if package is not None:
        wanted = wanted[:1] + [b for b in found if (b[2], b[3]) == ("needs", package)]
    return [
        (text[: block.start(4)].count("\n"), textwrap.dedent(block[4]))
        for block in wanted
    ]


def packages(text):
    """Names of the packages that some blocks of a text need, in order."""
    needed = [found[3] for found in BLOCK.finditer(text) if found[2] == "needs"]
    return list(dict.fromkeys(needed))


def run(text, where, namespace, package=None):
    """Runs the blocks of one text in order, in one namespace."""
    for line, code in blocks(text, package):
        # Blank lines, so that a traceback names the line of the page.
        exec(compile("\n" * line + code, where, "exec"), namespace)


def page_name(page):
    """The path of a page in the repository."""
    return str(page.relative_to(helper.ROOT))
