"""What hangs is ended, and says where."""

import subprocess
import sys

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


def test_a_test_that_hangs_fails_with_its_stacks_and_the_next_one_runs(tmp_path):
    (tmp_path / "test_hanging.py").write_text(HANGING)
    command = [sys.executable, "-m", "pytest", "-p", "tests.kit.time_out", "-p", "no:cacheprovider", "--timeout=1"]
    done = subprocess.run(
        [*command, f"--rootdir={tmp_path}", tmp_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert "2 failed, 1 passed" in done.stdout
    assert "in wait_for_nothing" in done.stdout
    assert "takes longer than 1 s" in done.stdout
