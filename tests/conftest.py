"""What holds for all tests."""

import gc
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
import structlog
import uvloop
from hypothesis import HealthCheck, settings

from tests.kit.clock import LOOPS
from tests.kit.time_out import pytest_exception_interact, pytest_timeout_set_timer

__all__ = ["pytest_exception_interact", "pytest_timeout_set_timer"]

BOTH_LOOPS = "SEMS_GATEWAY_BOTH_LOOPS" in os.environ
ORDERING = tuple(Path(__file__).parent / name for name in ("core", "kit"))
"""Where the order of the loop's handles is what is tested."""

# How long drawing an example takes says nothing on a machine that is busy.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Rich draws a failure with its locals and the code around: seconds, where a test has hundreds of them logged.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.StackInfoRenderer(),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

LOGGING = structlog.get_config()

# Coverage is of what tests call. Measured too, the programs they start would take half as long again.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)

# Containers often set it. Each gateway that a test starts would compile all of it again: half a second.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["SEMS_GATEWAY_LOG__FORMAT"] = "json"  # which tests read; tests/run/test_logs.py has the others

# A run in a shell's background ignores SIGINT, and so would every program it starts.
with suppress(ValueError):
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory):
    """The Apache Kafka that tests share; tests/kit/kafka.py says how."""
    from tests.kit.kafka import shared  # not for those that do without

    with shared(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def pytest_collection_modifyitems(items):
    """Let the slow ones begin first, so that none is left to one process alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Have no garbage collection go through the thousands of tests: they are no garbage."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_asyncio_loop_factories(item):
    """Run async tests on uvloop, as `run` does; where time is free, on a uvloop whose time is (tests/kit/clock.py).

    The core runs on asyncio's loop too, and with `make loops` everything does.
    """
    free = item.get_closest_marker("virtual")
    if free is None:
        return {"uvloop": uvloop.new_event_loop}
    only = free.kwargs.get("only")
    if only is None and not BOTH_LOOPS and not any(map(item.path.is_relative_to, ORDERING)):
        only = "uvloop"
    return {name: loop for name, loop in LOOPS.items() if only in (None, name)}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol():
    """Log as tests do again after a command that ran in this process and has its own way."""
    try:
        return (yield)
    finally:
        structlog.configure(**LOGGING)
