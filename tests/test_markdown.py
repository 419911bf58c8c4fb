"""Tables of our pages as GitHub reads them: each row stands in one, and has as many cells as its head."""

import re
import subprocess

import pytest

from tests.kit.process import ROOT

BORDER = re.compile(r"(?<!\\)\|")
RULE = re.compile(r"\|(\s*:?-+:?\s*\|)+")


def faults(text):
    """What is wrong with the tables of a page, as (line, why)."""
    found, block, in_code = [], [], False
    for number, line in enumerate([*text.splitlines(), ""], 1):
        row = line.strip()
        if row.startswith("```"):
            in_code = not in_code
        if row.startswith("|") and not in_code:
            block.append((number, row))
            continue
        if block and (len(block) < 3 or not RULE.fullmatch(block[1][1])):
            found.append((block[0][0], "a row outside a table"))
        elif block:
            columns = len(BORDER.findall(block[0][1]))
            found += [(at, "another number of cells") for at, row in block if len(BORDER.findall(row)) != columns]
        block = []
    return found


def pages():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, check=False, capture_output=True, text=True)
    # A copy without git, e.g. one that is broken on purpose, has the same pages.
    return sorted(listed.stdout.split()) or [
        "README.md",
        *(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md")),
    ]


@pytest.mark.parametrize("page", pages())
def test_each_row_stands_in_a_table_and_has_its_columns(page):
    assert faults((ROOT / page).read_text()) == []


def test_what_is_a_fault():
    head = "| a | b |\n|---|---|\n"
    assert faults(f"{head}| 1 | 2 \\| 3 |\n") == []
    assert faults(f"{head}| 1 | 2 |\n\n| 3 | 4 |\n") == [(5, "a row outside a table")]
    assert faults(f"{head}| 1 | 2 | 3 |\n") == [(3, "another number of cells")]
    assert faults("```\n| a |\n```\n") == []
