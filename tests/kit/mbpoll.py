"""`mbpoll`, a Modbus client of its own (C, libmodbus), as a test drives it."""

import asyncio
import os
import re
import shutil

import msgspec
import pytest

_LINE = re.compile(r"^\[(\d+)\]:\s+(\S+)", re.MULTILINE)


class Polled(msgspec.Struct):
    """What one run of mbpoll brought."""

    values: list[float]
    error: str
    """What it printed, e.g. `Write output (holding) register failed: Illegal data value`; "" when all went well."""


def need_mbpoll():
    """Skip the test where mbpoll is not installed, or fail it where nothing may be skipped."""
    if shutil.which("mbpoll"):
        return
    if os.environ.get("SEMS_GATEWAY_NO_SKIP") == "1":
        pytest.fail("mbpoll is not installed: apt-get install mbpoll")
    pytest.skip("mbpoll is not installed: apt-get install mbpoll")


async def mbpoll(port, address, *write, unit=1, table="4:int", count=1, swapped=False):
    """Read `count` values from a 0-based address, or write those given. Tables: 3 or 4, 4:int, 4:float, 4:hex."""
    need_mbpoll()
    options = ["-m", "tcp", "-p", str(port), "-a", str(unit), "-0", "-r", str(address), "-t", table, "-1", "-o", "5"]
    options += [] if swapped else ["-B"]
    options += [] if write else ["-c", str(count)]
    values = ["--", *map(str, write)] if write else []
    process = await asyncio.create_subprocess_exec(
        "mbpoll", *options, "127.0.0.1", *values, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    found = [float(int(v, 16) if v.startswith("0x") else float(v)) for _, v in _LINE.findall(out.decode())]
    return Polled(found, errors.decode().strip() if process.returncode else "")
