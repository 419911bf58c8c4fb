"""Who may import whom, as DESIGN says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "gateway"
MODULES = sorted(ROOT.rglob("*.py"))


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def violations(folder, forbidden):
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in MODULES
        if path.relative_to(ROOT).as_posix().startswith(folder)
        for name in imports(path)
        if any(name == f or name.startswith(f + ".") for f in forbidden)
    ]


def test_core_knows_no_protocol():
    assert not violations("core/", ["gateway.sems", "gateway.bridges", "gateway.simulator", "gateway.demo"])


def test_sems_knows_only_the_core():
    assert not violations("sems/", ["gateway.bridges", "gateway.simulator", "gateway.demo", "gateway.app"])


@pytest.mark.parametrize("bridge", sorted(p.name for p in (ROOT / "bridges").iterdir() if p.is_dir()))
def test_a_bridge_knows_no_other(bridge):
    others = [p.name for p in (ROOT / "bridges").iterdir() if p.is_dir() and p.name != bridge]
    above = ["gateway.app", "gateway.cli", "gateway.simulator", "gateway.demo", "gateway.settings"]
    assert not violations(f"bridges/{bridge}/", [f"gateway.bridges.{other}" for other in others] + above)


def test_the_simulator_shares_only_catalogues_and_types():
    shared = ("gateway.simulator", "gateway.sems.catalogue", "gateway.core", "gateway.http_server", "gateway.kafka")
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
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in ("now", "utcnow", "monotonic", "time")
        and isinstance(node.value, ast.Name)
        and node.value.id in ("datetime", "time")
    }
    # A terminal shows ages against the machine's clock.
    assert readers <= {"core/clock.py", "show.py"}
