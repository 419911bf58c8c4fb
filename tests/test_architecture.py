"""Who may import whom, as DESIGN says."""

import ast
import functools
import tomllib
from pathlib import Path

from tests import rooms

ROOT = Path(__file__).parents[1] / "gateway"
MODULES = sorted(ROOT.rglob("*.py"))


@functools.cache
def nodes(path):
    """What is asked about of a module's syntax tree, which is read once."""
    asked = ast.Import | ast.ImportFrom | ast.Attribute
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, asked)]


def imports(path):
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_rooms_import_only_from_rooms_below_them_and_bridges_know_no_other():
    """The contracts stand in pyproject.toml."""
    checked = rooms.linter("lint", "--no-cache")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_room_has_its_place_among_the_others():
    layers = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0][
        "layers"
    ]
    named = {name for layer in layers for name in layer.split(" | ")}
    assert named == {"gateway.__main__", *(f"gateway.{path.parent.name}" for path in ROOT.glob("*/__init__.py"))}


def test_no_import_is_relative():
    assert all(list(imports(path)) is not None for path in MODULES)


def test_the_simulator_shares_only_catalogues_and_types():
    shared = (
        "gateway.simulator", "gateway.sems.catalogue", "gateway.sems.recording", "gateway.core", "gateway.http.server",
        "gateway.kafka",
    )  # fmt: skip
    assert not [
        f"{path.name} imports {name}"
        for path in MODULES
        if path.is_relative_to(ROOT / "simulator")
        for name in imports(path)
        if name.startswith("gateway.") and not name.startswith(shared)
    ]


def test_only_the_core_clock_reads_the_time():
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "monotonic", "time")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "time")
    }
    # A terminal shows ages against the machine's clock; the others measure this process itself.
    assert readers <= {"core/clock.py", "terminal/show.py", "run/garbage.py", "run/loop_monitor.py"}


def test_no_handle_of_the_loop_is_asked_anything():
    """uvloop's handle of what is due at once has no `when()`; `gateway.core.timer` keeps the due time beside it."""
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and node.attr == "when"
    ]


def test_there_is_one_timer_and_one_limiter():
    """Made by hand, each gets its own order of time-out, cancellation and release wrong."""
    own = {"core/timer.py", "commands/timers.py", "run/loop_monitor.py"}  # the last measures how late timers are
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno} uses {node.attr}"
        for path in MODULES
        if path.relative_to(ROOT).as_posix() not in own
        for node in nodes(path)
        if isinstance(node, ast.Attribute)
        and node.attr in ("call_at", "call_later", "TimerHandle", "Semaphore", "BoundedSemaphore")
    ]
