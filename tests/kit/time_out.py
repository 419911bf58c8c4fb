"""A test that takes too long fails, and shows where each thread and each task stands.

pytest-timeout raises an error where the main thread is. uvloop swallows that, so a loop that runs is stopped instead.
"""

import asyncio
import signal
import sys

import pytest
from pytest_timeout import dump_stacks

AGAIN = 10.0
"""Seconds after which an error is raised all the same: somebody holds the loop, or the end takes too long as well."""


def pytest_timeout_set_timer(item, settings):
    def ring(*_):
        loop = asyncio._get_running_loop()
        signal.signal(signal.SIGALRM, fail)
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        if loop is None:
            fail()
        terminal = item.config.get_terminal_writer()
        terminal.sep("+", f"{item.nodeid} takes longer than {settings.timeout:g} s")
        dump_stacks(terminal)
        for task in sorted(asyncio.all_tasks(loop), key=lambda task: task.get_name()):
            task.print_stack(file=sys.stderr)
        loop.call_soon_threadsafe(loop.stop)

    def fail(*_):
        pytest.fail(f"takes longer than {settings.timeout:g} s")

    def cancel():
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout)
    return True
