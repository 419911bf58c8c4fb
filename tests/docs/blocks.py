"""Code blocks of the pages, and what is said of each in a comment right above it.

`<!-- not run: WHY -->`        nothing is tried
`<!-- run by: TEST -->`        that file tries it, and names the page
`<!-- settings of: TYPE -->`   YAML of a bridge of that type
`<!-- registers of: MAP -->`   YAML of another program; each `address` with its `decode` is a register of that map

Of any other the language says how it is tried (tests/docs/test_blocks.py).
"""

import re
import subprocess
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests.kit.process import ROOT

_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- (not run|run by|settings of|registers of): (.+) -->\s*\Z")


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str
    mark: str = ""
    of: str = ""

    def __str__(self):
        return f"{self.page}:{self.line}"


def pages():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=False, capture_output=True, text=True)
    # A copy without git, e.g. one that is broken on purpose, has the same pages.
    tracked = listed.stdout.split() or [str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md")]
    return sorted({"README.md", *(page for page in tracked if "/" not in page or page.startswith("docs/"))})


def blocks_of(page, text):
    """Return the blocks of a page, in order."""
    found = []
    for match in _BLOCK.finditer(text):
        before = text[: match.start()]
        mark = _MARK.search(before)
        line = before.count("\n") + 1
        found.append(Block(page, line, match[2], dedent(match[3]), *(mark.groups() if mark else ())))
    return found


def blocks():
    return [block for page in pages() for block in blocks_of(page, Path(ROOT, page).read_text())]
