"""Clients that we did not write, all against one gateway: those that need no compiler. `make clients` runs them all."""

import os
import shutil

import pytest
import pytest_asyncio

from tests.clients import programs
from tests.clients.judge import CHECKS, everything
from tests.kit.mbpoll import need_mbpoll
from tests.kit.mosquitto import need

QUICK = [(check, program) for check, program in CHECKS if program.quick]
pytestmark = [pytest.mark.system, pytest.mark.asyncio(loop_scope="module")]


def need_node():
    """Skip without Node.js and what tests/programs gets from npm, or fail where nothing may be skipped."""
    if shutil.which("node") and (programs.CACHE / "node" / "node_modules" / "modbus-serial").exists():
        return
    text = "the JavaScript clients are not installed (tests/programs does it, with npm)"
    pytest.fail(text) if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1" else pytest.skip(text)


def usable(program):
    return program.quick and (program.language != "JavaScript" or shutil.which("node"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(tmp_path_factory):
    need("mosquitto")
    only = [program for program in programs.ALL if usable(program)]
    async with everything(tmp_path_factory.mktemp("clients"), only) as there:
        yield there


@pytest.mark.parametrize(("check", "program"), QUICK, ids=[program.name for _, program in QUICK])
async def test_a_client_of_others_reads_writes_and_is_refused(world, check, program):
    if program.language == "JavaScript":
        need_node()
    if "mbpoll" in program.name:
        need_mbpoll()
    rows = await check(world, program)
    assert [row for row in rows if not row.good] == []
