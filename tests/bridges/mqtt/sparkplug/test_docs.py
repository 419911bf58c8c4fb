"""The page on Sparkplug's conformance says what is tested and what does not apply; this is that it says so truly."""

import ast
import re
from pathlib import Path

from tests.bridges.mqtt.sparkplug.statements import EDGE_NODE

HERE = Path(__file__).parent
PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "sparkplug-conformance.md").read_text()


def checked():
    """Statement → tests that check it."""
    found = {}
    for file in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            for call in getattr(node, "decorator_list", ()):
                if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "checks":
                    for argument in call.args:
                        found.setdefault(argument.value, []).append((file.name, node.name))
    return found


def rows(heading):
    """Statement → what the table below a heading says about it."""
    section = PAGE.split(f"\n### {heading}\n")[1].split("\n#")[0]
    found = {}
    for line in section.splitlines():
        if match := re.match(r"\| (`.+?`) \| (.+) \|$", line):
            for statement in re.findall(r"`([^`]+)`", match[1]):
                assert statement not in found
                found[statement] = match[2]
    return found


def test_every_statement_on_edge_nodes_is_listed_once():
    tested, rest = rows("Hold, and are tested"), rows("Do not apply, or are yours")
    assert not tested.keys() & rest.keys()
    assert tested.keys() | rest.keys() == EDGE_NODE


def test_each_that_is_said_to_be_tested_is_and_where():
    found = checked()
    told = rows("Hold, and are tested")
    assert told.keys() == found.keys()
    for statement, where in told.items():
        assert set(re.findall(r"\w+", where)) == {file.removesuffix(".py") for file, _ in found[statement]}, statement
