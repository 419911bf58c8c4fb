"""A test that takes too long fails, and shows where each thread and each task stands.

pytest-timeout raises an error where the main thread is. uvloop swallows that, so a loop that runs is stopped instead.
Neither helps where the end of a test waits without limit, and both stop counting once a test has failed, for a debugger
may look at it. So the count begins anew then, and at last the process ends: the others go on in a new one.
"""

import asyncio
import faulthandler
import os
import signal
import sys

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key
from pytest_timeout import dump_stacks

AGAIN = float(os.environ.get("PYTEST_TIMEOUT_AGAIN", "10"))
"""Seconds after which an error is raised all the same, and again: the loop is held, or the end takes too long."""
GIVEN_UP = 6 * AGAIN
"""Seconds after which the process ends."""


def pytest_timeout_set_timer(item, settings):
    def ring(*_):
        loop = asyncio._get_running_loop()
        signal.signal(signal.SIGALRM, fail)
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
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.limit = settings
    item.cancel_timeout = cancel
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, settings.timeout, AGAIN)
    stderr = item.config.stash[fault_handler_stderr_fd_key]  # the true one, as pytest's own count has it
    faulthandler.dump_traceback_later(settings.timeout + GIVEN_UP, exit=True, file=stderr)
    return True


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node):
    """Count again: what is left to do has a limit as well."""
    if hasattr(node, "limit"):
        pytest_timeout_set_timer(node, node.limit)
