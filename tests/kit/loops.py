"""The loops of tests that make their own: production's with real time, and the two whose time is free."""

import asyncio

import pytest
import uvloop

from tests.kit.clock import VirtualLoop, VirtualUvloop

LOOPS = {"uvloop": uvloop.new_event_loop, "virtual": VirtualLoop, "virtual uvloop": VirtualUvloop}
BOTH_LOOPS = pytest.mark.parametrize("loop", LOOPS)


def run_on(loop, work):
    """Run a coroutine to its end on a loop of that name, in a minute of its time."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(work, 120))
