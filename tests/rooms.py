"""Who may import whom, and the picture of it in docs/development.md.

The contracts stand in pyproject.toml; import-linter checks them, and grimp, on which it stands, has the graph.
"""

import subprocess
import sys
from itertools import permutations
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
KIT = "gateway.api.testing"
"""It runs what it tests in the real core, and nothing of ours imports it."""


def linter(*arguments):
    command = [str(Path(sys.executable).with_name("import-linter")), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def arrows():
    """Which room imports which: pairs of names."""
    graph = grimp.build_graph("gateway", cache_dir=None)
    for module in [KIT, *graph.find_descendants(KIT)]:
        graph.remove_module(module)
    rooms = sorted(graph.find_children("gateway") - {"gateway.__main__"})
    pairs = permutations(rooms, 2)
    found = [pair for pair in pairs if graph.direct_import_exists(importer=pair[0], imported=pair[1], as_packages=True)]
    return {tuple(name.removeprefix("gateway.") for name in pair) for pair in found}


def below(room, edges):
    """Every room that can be reached from one."""
    found, ahead = set(), {to for of, to in edges if of == room}
    while ahead:
        one = ahead.pop()
        found.add(one)
        ahead |= {to for of, to in edges if of == one} - found
    return found


def drawn(edges):
    """A Mermaid chart of the arrows that no others make plain: a room may use all that it can reach."""
    reach = {room: below(room, edges) for edge in edges for room in edge}
    needed = [
        (of, to) for of, to in sorted(edges) if not any(to in reach[by] for a, by in edges if a == of and by != to)
    ]
    return "```mermaid\nflowchart TD\n" + "".join(f"    {of} --> {to}\n" for of, to in needed) + "```\n"


def picture():
    """The chart of today."""
    return drawn(arrows())
