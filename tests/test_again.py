"""What fails beside the others is run again alone, and only that, and not much of it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = """
import os, pathlib, pytest

@pytest.mark.parametrize("n", range({count}))
def test_that_fails_beside_others(n):
    seen = pathlib.Path(f"seen{{n}}")
    first = not seen.exists()
    seen.touch()
    assert not first

def test_that_holds():
    with open("held", "a") as file:
        file.write("x")

def test_that_never_holds():
    assert not {broken}
"""


def again(directory, *options, count=0, broken=False):
    (directory / "test_some.py").write_text(TESTS.format(count=count, broken=broken))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tests.again", f"--rootdir={directory}", *options],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_a_few_that_hold_alone_are_named_and_the_run_passes(tmp_path):
    done = again(tmp_path, "-n1", count=2)  # as `make test` does, beside others
    assert done.returncode == 0
    assert "Please mend them:\n  test_some.py::test_that_fails_beside_others[0]\n  test_some" in done.stdout
    assert (tmp_path / "held").read_text() == "x"


def test_what_never_holds_fails_the_run(tmp_path):
    done = again(tmp_path, broken=True)
    assert done.returncode == 1
    assert "mend" not in done.stdout


def test_many_are_not_run_again(tmp_path):
    done = again(tmp_path, count=4)
    assert done.returncode == 1
    assert "once more" not in done.stdout


def test_what_can_not_even_be_collected_fails_the_run(tmp_path):
    (tmp_path / "test_broken.py").write_text("import nothing_of_that_name")
    assert again(tmp_path).returncode != 0
