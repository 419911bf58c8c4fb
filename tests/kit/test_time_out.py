"""What hangs is ended, and says where."""

import os
import subprocess
import sys
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"

HANGING = """
import asyncio, threading, uvloop

async def wait_for_nothing():
    await asyncio.Event().wait()

async def hang():
    await asyncio.create_task(wait_for_nothing(), name="the one that hangs")

def test_loop_that_waits():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(hang())

def test_thread_that_waits():
    threading.Event().wait()

def test_after_them():
    pass
"""


ENDLESS = """
import time, threading
import pytest

def wait_whatever_happens():
    while True:
        try:
            threading.Event().wait()
        except BaseException:
            pass

@pytest.fixture
def waits():
    yield
    threading.Event().wait()

@pytest.fixture
def never_ends():
    yield
    wait_whatever_happens()

def test_fails_and_its_end_waits(waits):
    raise ValueError

def test_fails_and_does_not_end(never_ends):
    raise ValueError

def test_after_them():
    pass
"""


def run(directory, *options):
    """Two seconds are for a busy machine: what hangs has to have begun by then."""
    command = [sys.executable, "-m", "pytest", "-p", "tests.kit.time_out", "-p", "no:cacheprovider", "--timeout=2"]
    environment = {**os.environ, "PYTEST_TIMEOUT_AGAIN": "0.5"}
    return subprocess.run(
        [*command, *options, f"--rootdir={directory}", directory],
        capture_output=True, text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip


def test_a_test_that_hangs_fails_with_its_stacks_and_the_next_one_runs(tmp_path):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    done = run(tmp_path)
    assert "2 failed, 1 passed" in done.stdout
    assert "in wait_for_nothing" in done.stdout
    assert "takes longer than 2 s" in done.stdout


def test_what_failed_and_does_not_end_is_ended_and_the_next_one_runs(tmp_path):
    (tmp_path / "test_endless.py").write_text(ENDLESS)
    done = run(tmp_path, "--numprocesses=1")
    assert "crashed while running 'test_endless.py::test_fails_and_does_not_end'" in done.stdout
    assert "1 passed" in done.stdout
    assert "takes longer than 2 s" in done.stdout
    assert "in wait_whatever_happens" in done.stderr


LEAVING = """
import asyncio, pytest, uvloop

@pytest.fixture
def runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner

async def listen():
    return await asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))

def test_fails_with_something_open(runner):
    left = runner.run(listen())
    raise ValueError(left)
"""


def test_what_failed_and_left_something_open_ends(tmp_path):
    """With our own settings, for it is one of them that uvloop can't do with."""
    (tmp_path / "test_leaving.py").write_text(LEAVING)
    done = run(tmp_path, "--numprocesses=1", "-c", PYPROJECT)
    assert "1 failed" in done.stdout
    assert "ValueError" in done.stdout
    assert "takes longer" not in done.stdout
    assert "crashed" not in done.stdout
